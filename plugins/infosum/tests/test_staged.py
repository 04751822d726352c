"""Staged mode: from files in a bucket to a published dataset, and every row of the table of failures."""

from __future__ import annotations

import io
import json

import attrs
import httpx
import pytest

from partnerenrich import AuthError, RateLimited, RequestRefused, Unavailable
from partnerenrich.models import StagedFile

# When all is well


async def test_a_batch_is_published(bench, csv_of, made_people):
    """Two parts end in the dataset, and the receipt counts them."""
    batch = bench.stage(csv_of(made_people(30)), csv_of(made_people(12, 30)))

    receipt = await bench.drive(batch)

    assert (receipt.state, receipt.accepted, receipt.rejected, receipt.malformed) == ("published", 42, 0, 0)
    assert (receipt.reasons, receipt.message) == ({}, None)
    shown = await bench.shown()
    assert (shown["records"], shown["publications"], shown["execution_id"]) == (42, 1, receipt.partner_ref)


async def test_parquet_is_published(bench, made_people):
    """The other format."""
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    sink = io.BytesIO()
    parquet.write_table(pyarrow.Table.from_pylist(made_people(7)), sink)

    receipt = await bench.drive(bench.stage(sink.getvalue(), suffix="parquet", rows=7))

    assert (receipt.state, receipt.accepted) == ("published", 7)


async def test_a_call_does_not_wait(bench, csv_of, made_people):
    """While InfoSum works the receipt says so, with the id of what it works on."""
    batch = bench.stage(csv_of(made_people(3)))

    first, second = await bench.call(batch), await bench.call(batch)

    assert (first.state, second.state) == ("running", "running")
    assert first.partner_ref.startswith("IMT.")
    assert len(bench.asked("POST", "/execute")) == 1


async def test_every_execution_is_kept(bench, csv_of, made_people):
    """With the stage that it belongs to, for whoever has to look it up."""
    await bench.drive(bench.stage(csv_of(made_people(3))))

    ids = {name: mark["id"].partition(".")[0] for name, mark in bench.ledger.progress["stages"].items()}
    assert ids == {"import": "IMT", "recordset": "MRC", "normalization": "NMZ", "prepare": "PUB", "publish": "PUB"}


async def test_nothing_is_saved_until_something_is_asked_for(bench, csv_of, made_people):
    """The check at the start reads; whoever finds no progress knows that nothing was sent."""
    bench.line.lost_requests = {6}
    with pytest.raises(httpx.ConnectError):
        await bench.call(bench.stage(csv_of(made_people(3))))

    assert bench.ledger.progress == {}
    assert {request.method for request in bench.requests} == {"GET", "PUT"}  # PUT told the sandbox of the bucket


async def test_the_batch_names_what_is_made_of_it(bench, csv_of, made_people):
    """The folder in the vault, and both recordsets."""
    await bench.drive(bench.stage(csv_of(made_people(3)), batch_id="20260101-abc"))

    (started,) = bench.asked("POST", "IMP.11/execute")
    assert started.url.params["target_folder"] == "partnerenrich/20260101-abc"
    assert started.content == b""
    (recordset,) = bench.asked("POST", "recordset-creation/execute")
    assert json.loads(recordset.content) == {
        "cloud_vault_id": "CLV.AWS_EU_CENTRAL_1.1",
        "recordset_name": "20260101-abc",
        "filepaths": ["partnerenrich/20260101-abc/acme/infosum/batches/20260101-abc/part-00001.csv"],
        "config_id": "RSC.11",
    }
    (normalization,) = bench.asked("POST", "normalizations/execute")
    assert json.loads(normalization.content)["output_recordset_name"] == "20260101-abc-normalized"
    (prepare,) = bench.asked("POST", "prepares/execute")
    assert json.loads(prepare.content)["config_id"] == "DPC.11"


async def test_other_batches_of_the_bucket_stay_out(bench, csv_of, made_people):
    """The importer copies them too; the recordset is made of the files of the batch alone."""
    assert (await bench.drive(bench.stage(csv_of(made_people(9)), batch_id="first"))).accepted == 9
    bench.ledger.progress = {}

    receipt = await bench.drive(bench.stage(csv_of(made_people(4)), batch_id="second"))

    assert (receipt.state, receipt.accepted) == ("published", 4)


async def test_an_importer_may_be_narrowed(bench, csv_of, made_people):
    """Its data_filter is then set to the batch before each import, and nothing else of it changes."""
    bench.config = bench.configured(narrow_importer=True)
    await bench.drive(bench.stage(csv_of(made_people(9)), batch_id="first"))
    bench.ledger.progress = {}

    receipt = await bench.drive(bench.stage(csv_of(made_people(4)), batch_id="second"))

    assert receipt.accepted == 4
    assert [json.loads(request.content) for request in bench.asked("PATCH", "IMP.11")] == [
        {"data_filter": {"filter": ["*first/*"]}},
        {"data_filter": {"filter": ["*second/*"]}},
    ]


async def test_files_may_lose_their_folders(bench, csv_of, made_people):
    """Where the import holds nothing but the batch, names and sizes are enough."""
    await bench.behave(flat_import=True)

    assert (await bench.drive(bench.stage(csv_of(made_people(4))))).state == "published"


async def test_files_that_lost_their_folders_among_others_are_not_guessed(bench, csv_of, made_people):
    """Part 1 of another batch may be of the same size."""
    bench.stage(csv_of(made_people(4)), csv_of(made_people(4, 4)), batch_id="first")
    await bench.behave(flat_import=True)

    receipt = await bench.drive(bench.stage(csv_of(made_people(4)), batch_id="second"))

    assert receipt.state == "failed"
    assert "2 files were imported and not those of the batch" in receipt.message
    assert (await bench.shown())["publications"] == 0


async def test_configs_of_the_settings_go_first(bench, csv_of, made_people):
    """The lineage is asked only for what they leave out."""
    configs = {"recordset_config_id": "RSC.11", "normalization_config_id": "NMC.11", "prepare_config_id": "DPC.11"}
    bench.config = bench.configured(dataset_id="AWS_EU_CENTRAL_1.13", **configs)

    receipt = await bench.drive(bench.stage(csv_of(made_people(4))))

    assert receipt.state == "published"
    assert bench.asked("GET", "lineage/publish/AWS_EU_CENTRAL_1.13") == []


async def test_a_dataset_that_was_never_published_needs_a_normalization_config(bench, csv_of, made_people):
    """With it files are read as they are written, and everything is published."""
    bench.config = bench.configured(dataset_id="AWS_EU_CENTRAL_1.13")
    with pytest.raises(RequestRefused, match="set normalization_config_id"):
        await bench.call(bench.stage(csv_of(made_people(4)), batch_id="first"))
    bench.config = bench.configured(dataset_id="AWS_EU_CENTRAL_1.13", normalization_config_id="NMC.11")

    receipt = await bench.drive(bench.stage(csv_of(made_people(4)), batch_id="second"))

    assert receipt.state == "published"
    (recordset,) = bench.asked("POST", "recordset-creation/execute")
    written = {"header_row": True, "primary_delimiter": ",", "file_type": "CSV"}
    assert json.loads(recordset.content)["execution_config"] == written
    (prepare,) = bench.asked("POST", "prepares/execute")
    assert json.loads(prepare.content)["config_embedded"]["all_keys"] is True


async def test_an_automation_does_it_all(bench, csv_of, made_people):
    """One execution; the importer is narrowed, since an automation takes all that it finds."""
    bench.stage(csv_of(made_people(9)), batch_id="first")
    bench.config = bench.configured(automation_id="ATM.11")

    receipt = await bench.drive(bench.stage(csv_of(made_people(4)), batch_id="second"))

    assert (receipt.state, receipt.accepted, receipt.malformed) == ("published", 4, 0)
    assert (await bench.shown())["execution_id"] == receipt.partner_ref
    assert len(bench.asked("POST", "/execute")) == 1
    assert len(bench.asked("PATCH", "IMP.11")) == 1


@pytest.mark.parametrize("spelling", ["today", "2022"])
async def test_both_spellings_of_a_state(bench, csv_of, made_people, spelling):
    """INITIALIZING and INITIALISING."""
    await bench.behave(spelling=spelling)

    assert (await bench.drive(bench.stage(csv_of(made_people(4))), step=1, calls=200)).state == "published"


# The check at the start


async def test_another_region_in_the_settings(bench, csv_of, made_people):
    """Nothing is asked for; the words are those of the troubleshooting table."""
    bench.config = bench.configured(region="us")

    with pytest.raises(RequestRefused, match="must match the residency region of your Bunker exactly") as raised:
        await bench.call(bench.stage(csv_of(made_people(4))))

    assert "region is us, but the Cloud Vault of the importer is in eu" in str(raised.value)
    assert {request.method for request in bench.requests[1:]} == {"GET"}


async def test_a_dataset_in_another_region(bench, csv_of, made_people):
    bench.config = bench.configured(dataset_id="AWS_EU_WEST_2.12")

    with pytest.raises(RequestRefused, match="the dataset is in uk"):
        await bench.call(bench.stage(csv_of(made_people(4))))


@pytest.mark.parametrize(("setting", "value"), [("dataset_id", "nowhere"), ("importer_id", "IMP.0")])
async def test_an_id_that_nobody_knows(bench, csv_of, made_people, setting, value):
    """The setting is named."""
    bench.config = bench.configured(**{setting: value})

    with pytest.raises(RequestRefused, match=f"check {setting}"):
        await bench.call(bench.stage(csv_of(made_people(4))))


@pytest.mark.parametrize(
    "changes",
    [
        {"api_key": "sandbox-v2-key-without-rights"},
        {"importer_id": "IMP.91"},
        {"dataset_id": "AWS_EU_CENTRAL_1.91"},
        {"api_key": "sandbox-v2-key-of-other"},
    ],
)
async def test_a_right_is_missing(bench, csv_of, made_people, changes):
    """403, and which access to look at."""
    bench.config = bench.configured(**changes)

    with pytest.raises(AuthError, match=r"\(403\).*access to the dataset \(dataset_id\) and the importer") as raised:
        await bench.call(bench.stage(csv_of(made_people(4))))

    assert "sandbox-v2-key" not in str(raised.value)


@pytest.mark.parametrize(
    ("key", "told"),
    [
        ("sandbox-public/sandbox-private", "has the form of a V1 key pair, and only V2 API keys are supported"),
        ("sandbox-v2-key-expired", "has not expired"),
        ("sandbox-v2-key-unknown", "confirm that api_key is a V2 API key and not a V1 key"),
    ],
)
async def test_a_key_is_refused(bench, csv_of, made_people, key, told):
    """401, with the advice of the troubleshooting table."""
    bench.config = bench.configured(api_key=key)

    with pytest.raises(AuthError, match="401") as raised:
        await bench.call(bench.stage(csv_of(made_people(4))))

    assert told in str(raised.value)
    assert key not in str(raised.value)


async def test_an_automation_of_something_else(bench, csv_of, made_people):
    """One that publishes elsewhere is not run."""
    bench.config = bench.configured(automation_id="ATM.11", dataset_id="AWS_EU_CENTRAL_1.13")

    with pytest.raises(RequestRefused, match="does not run importer_id and publish to dataset_id"):
        await bench.call(bench.stage(csv_of(made_people(4))))


@pytest.mark.parametrize("scheme", ["az", "azure", "abfss"])
async def test_azure_has_no_connector(bench, csv_of, made_people, scheme):
    """Said before anything is asked, with the two ways out."""
    batch = bench.stage(csv_of(made_people(4)))
    files = tuple(StagedFile(f"{scheme}://container/x.csv", 4, 1, "0" * 64) for _ in batch.files)

    with pytest.raises(
        RequestRefused, match=r"set deliver\.mode to local_upload, or stage in S3 or Google Cloud Storage"
    ):
        await bench.call(attrs.evolve(batch, files=files))

    assert [request.method for request in bench.requests] == ["PUT"]


@pytest.mark.parametrize(
    ("connector", "told"),
    [
        ("s3://another-bucket/acme", "reads from another place than deliver.staging"),
        ("s3://our-bucket/elsewhere", "has a prefix without deliver.staging"),
        ("gs://our-bucket/acme", "reads from another place than deliver.staging"),
    ],
)
async def test_a_connector_to_another_place(bench, csv_of, made_people, connector, told):
    """Seen before anything is asked for."""
    await bench.connect(connector)
    batch = bench.stage(csv_of(made_people(4)))
    files = (StagedFile("s3://our-bucket/acme/infosum/batches/b/part-00001.csv", 4, 1, "0" * 64),)

    with pytest.raises(RequestRefused, match=told):
        await bench.call(attrs.evolve(batch, files=files))

    assert bench.ledger.progress == {}


@pytest.mark.parametrize("mode", ["staged", "local_upload"])
async def test_compressed_files_are_refused(bench, csv_of, made_people, mode):
    """Before anything is asked."""
    batch = bench.stage(csv_of(made_people(4)), mode=mode, suffix="csv.gz")

    with pytest.raises(RequestRefused, match=r"remove deliver\.compression"):
        await bench.call(batch)


async def test_check_reads_only(bench):
    """Importer, vault, dataset, lineage."""
    from partnerenrich_infosum._api import Api
    from partnerenrich_infosum._startup import start_up

    await start_up(Api(bench.config, bench.http), is_automated=False)

    assert [request.method for request in bench.requests[1:]] == ["GET"] * 4


# What can go wrong on the way


async def failing(bench, batch, state: str, *told: str) -> str:
    """The batch ends like this, the dataset stays as it was; returns the message."""
    receipt = await bench.drive(batch)

    assert receipt.state == state, receipt
    assert (await bench.shown())["publications"] == 0
    assert set(receipt.reasons.values()) == {sum(file.rows for file in batch.files)}
    for words in told:
        assert words in receipt.message
    return next(iter(receipt.reasons))


async def test_the_bucket_cannot_be_read(bench, csv_of, made_people):
    await bench.behave(connector_refused=True)

    reason = await failing(bench, bench.stage(csv_of(made_people(4))), "failed", "ICC_PERMISSION_DENIED", "let into")

    assert reason == "import:ICC_PERMISSION_DENIED"


@pytest.mark.parametrize("ends", ["completed", "failed"])
async def test_the_filter_leaves_the_files_out(bench, csv_of, made_people, ends):
    """An import of nothing may well be called complete."""
    await bench.behave(empty_import=ends)
    await bench.connect((bench.folder / "elsewhere").as_uri())
    (bench.folder / "elsewhere").mkdir()

    reason = await failing(bench, bench.stage(csv_of(made_people(4))), "failed", "data_filter", "deliver.staging")

    assert reason == "import:FILE_NOT_FOUND"


async def test_some_files_were_not_copied(bench, csv_of, made_people):
    """Half a batch is not published."""
    await bench.behave(uncopied_files=1)
    batch = bench.stage(csv_of(made_people(4)), csv_of(made_people(4, 4)))

    await failing(bench, batch, "failed", "PARTIALLY_COMPLETED", "some files were not copied")


async def test_a_file_is_not_whole(bench, csv_of, made_people):
    """A file of another size in the vault is not the one that was sealed."""
    batch = bench.stage(csv_of(made_people(4)))
    next(bench.folder.rglob("part-00001.csv")).write_bytes(csv_of(made_people(3)))

    await failing(bench, batch, "failed", "or not whole")


async def test_files_differ_in_their_columns(bench, csv_of, made_people):
    batch = bench.stage(csv_of(made_people(4)), csv_of(made_people(4), ["email", "customer_id"]))

    reason = await failing(bench, batch, "rejected", "the same columns in the same order")

    assert reason == "recordset:API_MALFORMED_INPUT"


async def test_ragged_lines_are_counted(bench, csv_of, made_people):
    """The others are published."""
    content = csv_of(made_people(10)) + b"only,three,cells\n" + b"customer-x,\xff\xfe,a,b,c\n"

    receipt = await bench.drive(bench.stage(content))

    assert (receipt.state, receipt.accepted, receipt.malformed, receipt.rejected) == ("published", 10, 2, 0)
    assert receipt.reasons == {"malformed_lines": 2}


async def test_columns_that_are_expected_and_not_sent(bench, csv_of, made_people):
    """They are named; InfoSum's own words are not repeated."""
    bench.config = bench.configured(dataset_id="AWS_EU_CENTRAL_1.14")

    reason = await failing(
        bench,
        bench.stage(csv_of(made_people(4))),
        "rejected",
        "the columns email_address are expected and not sent",
        "see the run history in the InfoSum UI",
    )

    assert reason == "normalization:INVALID_ARGUMENT"


async def test_columns_beyond_those_expected_are_ignored(bench, csv_of, made_people):
    records = [{**record, "loyalty": "gold"} for record in made_people(4)]

    assert (await bench.drive(bench.stage(csv_of(records, list(records[0]))))).accepted == 4


async def test_values_that_cannot_be_used_are_counted(bench, csv_of, made_people):
    """A row stays while another key is good, and is dropped otherwise."""
    records = made_people(10)
    records[0]["email"] = "not an address"
    records[1]["phone"] = "12"
    records[2] |= {"email": "nobody", "phone": "", "customer_id": ""}

    receipt = await bench.drive(bench.stage(csv_of(records)))

    assert (receipt.state, receipt.accepted, receipt.rejected, receipt.malformed) == ("published", 9, 1, 0)
    assert receipt.reasons == {"invalid:email": 2, "invalid:phone": 1, "dropped_by_normalization": 1}
    assert "lower-case and trim before hashing" in receipt.message


async def test_too_many_values_that_cannot_be_used(bench, csv_of, made_people):
    records = [{**record, "email": "not hashed and no address"} for record in made_people(4)]

    reason = await failing(
        bench, bench.stage(csv_of(records)), "rejected", "lower-case and trim before hashing", "another salt or casing"
    )

    assert reason == "normalization:TRANSFORM_EXCEEDED_ROW_ERRORS"


@pytest.mark.parametrize("when", ["execute", "prepare"])
async def test_a_dataset_that_moves_to_another_region_meanwhile(bench, csv_of, made_people, when):
    """At the request, or while it runs."""
    await bench.behave(region_check=when)
    batch = bench.stage(csv_of(made_people(4)))
    await bench.call(batch)
    bench.config = bench.configured(dataset_id="AWS_EU_WEST_2.12")

    receipt = await bench.drive(batch)

    assert receipt.state == "failed"
    assert "FILE_INVALID_REGION" in receipt.message
    assert (await bench.shown())["publications"] == 0


async def test_a_key_that_ends_on_the_way(bench, csv_of, made_people):
    """The batch stays as it is, and goes on with a new key."""
    batch = bench.stage(csv_of(made_people(4)))
    await bench.call(batch)
    good, bench.config = bench.config, bench.configured(api_key="sandbox-v2-key-expired")
    bench.clock.now += 20
    with pytest.raises(AuthError):
        await bench.call(batch)
    bench.config = good

    assert (await bench.drive(batch)).state == "published"
    assert set((await bench.begun()).values()) == {1}


async def test_rate_limit_and_outage_pass(bench, csv_of, made_people):
    """The seconds of Retry-After are handed on."""
    batch = bench.stage(csv_of(made_people(4)))
    await bench.behave(throttled=1)
    with pytest.raises(RateLimited) as raised:
        await bench.call(batch)
    await bench.behave(outage=503)
    with pytest.raises(Unavailable):
        await bench.call(batch)
    await bench.behave(outage=0)

    assert raised.value.retry_after == 1
    assert (await bench.drive(batch)).state == "published"


@pytest.mark.parametrize("stage", ["import", "recordset", "normalization", "prepare"])
async def test_a_stage_that_never_ends(bench, csv_of, made_people, stage):
    """Nothing is published without being asked for, so it has failed for certain."""
    bench.config = bench.configured(stage_deadline=100)
    await bench.behave(stuck=stage)

    await failing(bench, bench.stage(csv_of(made_people(4))), "failed", "within 100 s", "nothing is published")


async def test_a_publish_that_never_ends(bench, csv_of, made_people):
    """It may yet come, so a person decides."""
    bench.config = bench.configured(stage_deadline=100)
    await bench.behave(stuck="publish")

    await failing(bench, bench.stage(csv_of(made_people(4))), "uncertain", "look at the dataset in the InfoSum UI")


async def test_an_automation_that_never_ends(bench, csv_of, made_people):
    bench.config = bench.configured(stage_deadline=100, automation_id="ATM.11")
    await bench.behave(stuck="recordset")

    await failing(bench, bench.stage(csv_of(made_people(4))), "uncertain", "may yet publish")


async def test_an_automation_whose_step_fails(bench, csv_of, made_people):
    """Its code is told."""
    bench.config = bench.configured(automation_id="ATM.11")
    await bench.behave(connector_refused=True)

    await failing(bench, bench.stage(csv_of(made_people(4))), "failed", "ICC_PERMISSION_DENIED")


async def test_an_execution_that_somebody_cancels(bench, csv_of, made_people):
    batch = bench.stage(csv_of(made_people(4)))
    running = await bench.call(batch)
    await bench.http.post(
        f"{bench.config.root}/imports/executions/{running.partner_ref}/cancel",
        headers={"Authorization": bench.config.api_key.reveal()},
    )

    await failing(bench, batch, "failed", "CANCELED")


async def test_another_publish_takes_the_place_of_ours(bench, csv_of, made_people):
    """Before we could see ours: a person has to know which one is right."""
    ours = bench.stage(csv_of(made_people(4)), batch_id="ours")
    await bench.behave(latency_s=0, latency={"publish": 5})
    assert (await bench.call(ours)).state == "running"
    saved, bench.ledger.progress = bench.ledger.progress, {}
    bench.clock.now += 6
    await bench.drive(bench.stage(csv_of(made_people(6)), batch_id="theirs"))
    bench.ledger.progress = saved

    receipt = await bench.drive(ours)

    assert (await bench.shown())["publications"] == 2
    assert (receipt.state, receipt.reasons) == ("uncertain", {"publish:replaced": 4})
    assert "the batch was published, but the dataset names another publish by now" in receipt.message


# Handed over again


@pytest.mark.parametrize("fault", [{"connector_refused": True}, {"uncopied_files": 1}])
async def test_a_batch_that_failed_is_sent_again_under_another_name(bench, csv_of, made_people, fault):
    """From the stage that failed."""
    batch = bench.stage(csv_of(made_people(4)))
    await bench.behave(**fault)
    assert (await bench.drive(batch)).state == "failed"
    await bench.behave(connector_refused=False, uncopied_files=0)

    receipt = await bench.drive(batch)

    assert (receipt.state, receipt.accepted) == ("published", 4)
    folders = [request.url.params["target_folder"] for request in bench.asked("POST", "IMP.11/execute")]
    assert folders == ["partnerenrich/20260101-batch-1", "partnerenrich/20260101-batch-1-2"]


async def test_a_normalization_that_failed_is_made_again_from_the_same_recordset(bench, csv_of, made_people):
    """Once somebody has mended its config."""
    bench.config = bench.configured(normalization_config_id="NMC.12")
    batch = bench.stage(csv_of(made_people(4)))
    assert (await bench.drive(batch)).state == "rejected"
    bench.config = bench.configured(normalization_config_id="NMC.11")

    receipt = await bench.drive(batch)

    assert receipt.state == "published"
    assert await bench.begun() == {"import": 1, "recordset": 1, "normalization": 2, "prepare": 1, "publish": 1}


async def test_a_name_that_is_taken_by_something_else(bench, csv_of, made_people):
    """No execution of it can be seen, so it is not ours and not used."""
    batch = bench.stage(csv_of(made_people(4)))
    await bench.drive(batch)
    bench.ledger.progress = {}
    bench.line.unlisted = "recordset-creation/executions"

    receipt = await bench.drive(batch)

    assert (receipt.state, receipt.reasons) == ("failed", {"recordset:409": 4})
    assert "the name of the batch is taken at InfoSum by something else" in receipt.message
    assert (await bench.shown())["publications"] == 1


async def test_a_name_that_is_taken_is_left_on_a_retry(bench, csv_of, made_people):
    """The second attempt has names of its own."""
    batch = bench.stage(csv_of(made_people(4)))
    await bench.drive(batch)
    bench.ledger.progress = {}
    bench.line.unlisted = "recordset-creation/executions"
    await bench.drive(batch)
    bench.line.unlisted = ""

    receipt = await bench.drive(batch)

    assert receipt.state == "published"
    last = bench.asked("POST", "recordset-creation/execute")[-1]
    assert json.loads(last.content)["recordset_name"] == "20260101-batch-1-2"


async def test_a_list_that_lags_behind_is_waited_for(bench, csv_of, made_people):
    """Files that were imported may show a little later."""
    batch = bench.stage(csv_of(made_people(4)))
    await bench.call(batch)
    bench.clock.now += 11
    bench.line.unlisted = "partnerenrich/20260101-batch-1"
    waiting = await bench.call(batch)
    bench.line.unlisted = ""

    assert waiting.state == "running"
    assert (await bench.drive(batch)).state == "published"
