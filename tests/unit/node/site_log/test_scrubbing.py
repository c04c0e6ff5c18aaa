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
    ],
)
def test_a_path_is_taken_out(text, left):
    scrub = Scrubber(["/data/of ada", "/home/ada", "/"])
    assert scrub(text) == left
    assert scrub(left) == left
