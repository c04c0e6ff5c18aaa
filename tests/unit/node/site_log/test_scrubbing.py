"""Paths are taken out of what leaves a node; what says where code failed stays."""

import pytest

from covey.node.site_log.scrubbing import Scrubber


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ('  File "/home/ada/tumours/tasks.py", line 31, in loss', '  File "<path>/tasks.py", line 31, in loss'),
        ("FileNotFoundError: '/srv/images/patient 17.png'", "FileNotFoundError: '<path>'"),
        ("no /data/of ada/b.csv here", "no <path> here"),
        ("/data/of ada", "<path>"),
        ("/data/of ada2 differs, /data differs", "<path> ada2 differs, <path> differs"),
        ("cannot open ~/private/a.csv: 3/4 of http://example.org/x", "cannot open <path> 3/4 of http://example.org/x"),
        (r"C:\Users\ada\x.csv and \\server\share", "<path> and <path>"),
        ("failed at /opt/a/tasks.py:31, in loss", "failed at <path>/tasks.py:31, in loss"),
        ("loss 0.5, 1 / 2", "loss 0.5, 1 / 2"),
        ("""no "/data/O'Brien/scan.dcm" here""", 'no "<path>" here'),
        ("""no "/data/of ada/O'Brien/scan.dcm" here""", 'no "<path>" here'),
        (r"""no '/data/O\'Brien "x"/scan.dcm' here""", "no '<path>' here"),
        (r"""{"error": "no \"/data/of eve/scan.dcm\" here"}""", r"""{"error": "no \"<path>\" here"}"""),
        ("no /data/of ada/O'Brien/a, /data/O'Brien/scan.dcm", "no <path>, <path>"),
        ("file:/data/patients/anna.dcm see:/home/x/y", "file:<path> see:<path>"),
        ("file:///data/anna.dcm, 'file:///data/anna smith.dcm'", "file://<path>, '<path>'"),
        ("http://example.org:80/x at host:C:\\x", "http://example.org:80/x at host:<path>"),
    ],
)
def test_a_path_is_taken_out(text, left):
    scrub = Scrubber(["/data/of ada", "/home/ada", "/"])
    assert scrub(text) == left
    assert scrub(left) == left


@pytest.mark.parametrize("piece", ['"/\\', '\\"/', ":/", "\"/\\'"])
def test_a_line_that_was_made_for_it_takes_no_longer_than_others(piece):
    """Fifty times what a line may have: in a time that is quadratic this would be minutes."""
    assert piece * 3 not in Scrubber(["/data"])('"/' + piece * 50_000)
