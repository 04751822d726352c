"""Named recipes that normalise and hash identifiers."""

HASHES = ("none", "sha256", "sha256_lower_trim", "sha256_b64", "sha256_digits_hex", "sha1_national_hex", "uid2")
