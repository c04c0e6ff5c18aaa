import click
import pytest
from click.testing import CliRunner

from covey.cli.framework.options import Address, Duration, Size, VersionName, target_of, watch_options
from covey.client.target import Target


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("15m", 900), ("1h", 3600), ("2d", 172800), ("1.5h", 5400)])
def test_durations(text, seconds):
    assert Duration().convert(text, None, None) == seconds


@pytest.mark.parametrize("text", ["", "1", "h", "1w", "-1h", "0s", "1h30m", "1e3s"])
def test_wrong_durations(text):
    with pytest.raises(click.BadParameter, match="15m"):
        Duration().convert(text, None, None)


@pytest.mark.parametrize(
    ("text", "count"), [("1000", 1000), ("5KB", 5000), ("500MB", 5 * 10**8), ("20 gb", 2 * 10**10), ("16GiB", 1 << 34)]
)
def test_sizes(text, count):
    assert Size().convert(text, None, None) == count


@pytest.mark.parametrize("text", ["", "GB", "0MB", "-1GB", "1.5GB", "1PB"])
def test_wrong_sizes(text):
    with pytest.raises(click.BadParameter, match="16GiB"):
        Size().convert(text, None, None)


@pytest.mark.parametrize("text", ["127.0.0.1:0", "[::1]:7400", "covey.example.org:65535"])
def test_addresses(text):
    assert Address().convert(text, None, None) == text


@pytest.mark.parametrize("text", ["", "host", ":7400", "host:", "host:port", "host:65536", "host:-1"])
def test_wrong_addresses(text):
    with pytest.raises(click.BadParameter, match="HOST:PORT"):
        Address().convert(text, None, None)


def test_target_by_folder_or_by_address(tmp_path):
    assert target_of(tmp_path, None, None) == Target(tmp_path)
    assert target_of(tmp_path, "host:1", tmp_path / "me") == Target(None, "host:1", tmp_path / "me")


def test_target_that_is_incomplete(tmp_path):
    with pytest.raises(click.UsageError, match="--data-dir DIR"):
        target_of(None, None, None)
    with pytest.raises(click.UsageError, match="go together"):
        target_of(tmp_path, "host:1", None)
    with pytest.raises(click.UsageError, match="go together"):
        target_of(None, None, tmp_path)


def test_versions_by_name_and_number():
    assert [VersionName().convert(text, None, None) for text in ("newest", "best", "0", "12")] == [
        "newest",
        "best",
        0,
        12,
    ]
    with pytest.raises(click.BadParameter, match="'newest' or 'best'"):
        VersionName().convert("-3", None, None)


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        ([], 0, "False False"),
        (["--watch"], 0, "True False"),
        (["--watch", "--no-color"], 0, "True True"),
        (["--no-color"], 2, "give that as well"),
    ],
)
def test_colours_are_a_matter_of_what_is_watched(options, code, said):
    @click.command()
    @watch_options
    def command(watching: bool, no_color: bool) -> None:
        click.echo(f"{watching} {no_color}")

    done = CliRunner().invoke(command, options)
    assert (done.exit_code, said in done.output) == (code, True)
