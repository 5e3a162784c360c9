"""Cutting a script into commands changes nothing of what it does."""

from __future__ import annotations

import shutil
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keepflow.steps._commands import commands, shown
from keepflow.steps.run import argv

SHELLS = [shell for shell in ("dash", "bash", "busybox") if shutil.which(shell)]


@pytest.mark.parametrize(
    ("script", "pieces"),
    [
        ("make", ["$ make"]),
        ("a\nb\n", ["$ a", "$ b"]),
        ("# why\n\na  # here\n\n", ["$ a  # here"]),
        ("a &&\n  b\nc |\n  d\n", ["$ a &&\n>   b", "$ c |\n>   d"]),
        ("a \\\n  b\nc", ["$ a \\\n>   b", "$ c"]),
        ('echo "a\nb"\nc', ['$ echo "a\n> b"', "$ c"]),
        ("echo 'it''s'\nc", ["$ echo 'it''s'", "$ c"]),
        ("x=$(a\nb)\nc", ["$ x=$(a\n> b)", "$ c"]),
        ("x=`a\nb`\nc", ["$ x=`a\n> b`", "$ c"]),
        ("x=${a:-'}'}\nc", ["$ x=${a:-'}'}", "$ c"]),
        ("(a\nb)\nc", ["$ (a\n> b)", "$ c"]),
        ("{ a\nb; }\nc", ["$ { a\n> b; }", "$ c"]),
        ("if a\nthen b\nfi\nc", ["$ if a\n> then b\n> fi", "$ c"]),
        ("for x in 1 2; do\n  echo done\ndone\nc", ["$ for x in 1 2; do\n>   echo done\n> done", "$ c"]),
        ("case x in\n a) b;;\n done) d;;\nesac\nc", ["$ case x in\n>  a) b;;\n>  done) d;;\n> esac", "$ c"]),
        ("f()\n{\n a\n}\nc", ["$ f()\n> {\n>  a\n> }", "$ c"]),
        ("echo waiting for it\nc", ["$ echo waiting for it", "$ c"]),
        ("echo it\\'s\nc", ["$ echo it\\'s", "$ c"]),
        ("a\nrc=$?\nb", ["$ a\n> rc=$?", "$ b"]),
        ("a\ncat <<END\nb\nEND\nc", ["$ a", "$ cat <<END\n> b\n> END\n> c"]),
        ("grep 'a$'\necho '<<'\nc", ["$ grep 'a$'", "$ echo '<<'", "$ c"]),
        ("a\n[[ x\n&& y ]]\nc", ["$ a", "$ [[ x\n> && y ]]\n> c"]),
        ("echo $'it\\'s\n'\nc", ["$ echo $'it\\'s\n> '\n> c"]),
        ("echo $((1 + (2)))\nc", ["$ echo $((1 + (2)))", "$ c"]),
        ("a\nset -x\nb\nc", ["$ a", "$ set -x\n> b\n> c"]),
        ("# nothing\n\n", []),
        ("", []),
    ],
)
def test_a_script_is_shown_command_by_command(script: str, pieces: list[str]) -> None:
    assert "".join(commands(script)) == script
    assert [text for piece in commands(script) if (text := shown(piece))] == pieces


# No line here may loop or recurse without end, alone or with the others.
LINES = r"""
echo a
echo 'b c'
echo "d
e" f
x=1
echo $x
echo "${x:-y}"
true
false
! true
echo $?
rc=$?
if true; then
elif false; then
else
fi
for i in 1 2; do
while false; do
until true; do
for j in 3
do
done
case a in
a) echo yes ;;
*) echo no ;;
(done) :;;
esac
{ echo g
}
( echo h
)
y=$(echo i
echo j)
z=`echo k
`
f() {
g()
k() { echo k; }; k
true &&
false ||
echo l |
cat
echo m \
# it's a comment
echo n # 'o
set +e
set -e
cat <<E
E
echo $((1 + 2))
echo $(( 1
+ 2 ))
echo $((1 << 2))
grep '$'
echo if fi done
echo { }
set -x
set -u
exit 3
echo p; echo q
'
"
fi; fi
done; echo r
echo \'
echo '\'
echo "\""
echo a#b
echo ${x#'}'}
eval 'echo s'
return 4
x='
then
if
if false
esac fi
;;
&&
trap 'echo t $?' EXIT
printf '%s\n' u
"""
lines = st.sampled_from(LINES.split("\n"))


@pytest.mark.parametrize("shell", SHELLS)
@settings(max_examples=300, deadline=None)
@given(script=st.lists(lines, max_size=9).map("\n".join))
def test_a_shown_script_does_exactly_what_the_script_does(shell: str, script: str) -> None:
    plain, announced = _run(shell, script), _run(shell, argv(script)[-1])
    assert announced.stdout == plain.stdout
    if any(words in plain.stderr for words in ("yntax error", "unexpected EOF")):  # bash's code depends on the line
        assert bool(announced.returncode) == bool(plain.returncode)
    else:
        assert announced.returncode == plain.returncode


def _run(shell: str, program: str) -> subprocess.CompletedProcess[str]:
    command = [shell, "sh"] if shell == "busybox" else [shell]
    return subprocess.run(
        [*command, "-e", "-c", f"\n{program}"],
        env={"PATH": "/usr/bin:/bin"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=20,
    )
