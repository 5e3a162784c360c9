"""Git with hostile repositories, remotes and names in mind; everything keepflow does with git goes through here.

checks (what is a legal commit, ref, address) → remotes (environment, credentials) → mirror (master), lane (agent),
serving (the master's own git over HTTP).
"""

from keepflow.tools.git.checks import check_ref, check_remote_url, check_sha
from keepflow.tools.git.lane import Lane
from keepflow.tools.git.mirror import Commit, Made, Merged, Mirror, init_bare
from keepflow.tools.git.remotes import Remote, check_version, ls_remote
from keepflow.tools.git.serving import receive_pack_argv, upload_pack_argv

__all__ = [
    "Commit",
    "Lane",
    "Made",
    "Merged",
    "Mirror",
    "Remote",
    "check_ref",
    "check_remote_url",
    "check_sha",
    "check_version",
    "init_bare",
    "ls_remote",
    "receive_pack_argv",
    "upload_pack_argv",
]
