"""
The match-rate doctor: how another party made its digests, and how many of them would be ours.

Nobody reports a digest that differs, it just never matches. So many ways to make one are tried:

* `normalising`: what is done to the identifier, as a product of independent steps;
* `hashing`: what is done to the text then, as another product;
* `written`: how digests are written, which need not be tried, for it shows;
* `columns`: reading one column of a file;
* `doctor`: trying all of it on two files;
* `diagnosis`: what that says, as text and as JSON.

No value gets into a result, an error or a repr. A digest of a phone or of a guessable address is as
personal as the value, so digests are treated alike.
"""
