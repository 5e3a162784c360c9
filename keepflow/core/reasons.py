"""What every reason code means in words, and what helps: beside the sentence that is about one run alone."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Meaning:
    """What a reason code says of every run, job, gate or deployment that carries it."""

    sentence: str
    help: str = ""  #: what a person can do about it; "" = nothing, it goes on or stays by itself


_AGENT = "`keepflow agent ls` shows the agents; the log of the agent on its own machine says more"
_FLOW = "mend the flow file or the script and push, or run it again: keepflow rerun"
_AGAIN = "run it again: keepflow rerun"

MEANINGS: dict[str, Meaning] = {
    # --- on the way ---
    "new": Meaning("it has just been made"),
    "needs": Meaning("it waits for other jobs of its run"),
    "ready": Meaning("it may start and waits for an agent"),
    "queue": Meaning(
        "it waits for an older run that must not run at the same time", "cancel the older run, or change `concurrency`"
    ),
    "paused": Meaning("somebody holds its project back", "keepflow resume, by the holder or an admin"),
    "needs-approval": Meaning(
        "it is somebody else's code, and a person must let it begin", "read the code, then: keepflow approve"
    ),
    "no-agent": Meaning("no connected agent can take the job", _AGENT),
    "no-ssh": Meaning("a step names a host that the agent's file does not list for this flow", "`ssh:` in agent.yml"),
    "no-slot": Meaning("every agent that can take the job is busy", "it starts when one of their jobs ends"),
    "retry": Meaning("a try ended badly, and the flow says to try again"),
    "silent": Meaning("nothing was heard of its agent for a while; its job may still go on there", _AGENT),
    "deploy": Meaning("its deployment is being prepared"),
    "offered": Meaning("the order to deploy is on its way to the agent"),
    "deploy-under-way": Meaning("another run is deploying to the environment"),
    "locked": Meaning("somebody holds the environment as it is", "keepflow unlock, by the holder or an admin"),
    "agent-missing": Meaning("the agent of the environment has not joined", "keepflow agent token, then join there"),
    "agent-offline": Meaning("the agent of the environment is not connected", _AGENT),
    "agent-cannot": Meaning(
        "the agent of the environment may not deploy", "add `deploy` to `capabilities` in its agent.yml"
    ),
    "outcome-unknown": Meaning(
        "how a deployment ended cannot be read; the environment is locked until it can", "look at the host's doctor"
    ),
    "approval": Meaning("it waits for a person's yes", "keepflow approve answers a flow, keepflow promote a gate"),
    # --- what an agent would not do ---
    "no-capability": Meaning("the agent's own file does not let it run script jobs", "see `capabilities` in agent.yml"),
    "bad-job": Meaning("the order of the job was not one that an agent carries out", "update master and agent"),
    "unknown-step": Meaning("the agent does not know a kind of step", "update the agent"),
    "no-containers": Meaning("the host gives this flow no containers", "see `containers` in its agent.yml"),
    "image-refused": Meaning(
        "the host makes no containers of jobs from that image", "see `containers: {images: …}` in its agent.yml"
    ),
    "over-limit": Meaning("the flow wants more than the host gives a container", "ask for less, or allow more there"),
    "no-image": Meaning("an image that the job names is not there", _FLOW),
    "bad-image": Meaning("what a step named as the image it built is no name of an image", _FLOW),
    "digest-mismatch": Meaning("the engine or the registry has another image than the one that was named", _AGAIN),
    "no-engine": Meaning("this flow may not use the container engine of the host", "see `docker_for` in its agent.yml"),
    "bad-place": Meaning("a step put something in the way of the job's own files", _FLOW),
    "no-files": Meaning("the files that earlier jobs of the run left are gone", _AGAIN),
    "not-handed-on": Meaning(
        "the files of the job could not be handed on to another machine, or fetched from there", _AGAIN
    ),
    "no-submodule": Meaning(
        "a submodule could not be had", "see `submodules` of the project in keepflow.yml, and .gitmodules"
    ),
    "no-lfs": Meaning("a file that Git LFS keeps could not be had", "push it: git lfs push --all"),
    "conflict": Meaning("jobs that ran side by side changed the same file", "let one of them need the other"),
    # --- how it ended ---
    "no-base": Meaning("the environment that the instance of a branch belongs to is not there any more"),
    "idle": Meaning("nothing was deployed to the instance of a branch for as long as `idle` of its environment says"),
    "pull-request-closed": Meaning("its pull request was closed while it waited", "reopen the pull request"),
    "exit": Meaning("the script failed: its exit code was not 0", _FLOW),
    "timeout": Meaning("it took longer than its limit and was ended", "raise `timeout`, or make it quicker"),
    "system": Meaning("keepflow or the machine could not do it; the script is not to blame", _AGAIN),
    "config": Meaning("the flow file or a setting does not fit", _FLOW),
    "lost": Meaning("its agent vanished, and nobody knows what became of the job", _AGAIN),
    "agent-restarted": Meaning("its agent was restarted in the middle and could not take it up again", _AGAIN),
    "machine-restarted": Meaning("the machine of its agent was restarted in the middle", _AGAIN),
    "agent-stopped": Meaning("its agent was stopped in the middle", _AGAIN),
    "cancelled": Meaning("a person ended it", _AGAIN),
    "superseded": Meaning("a newer one took its place"),
    "need-failed": Meaning("a job that it needs did not succeed"),
    "condition": Meaning("what it is for did not come"),
    "tolerated": Meaning("a job failed that may fail"),
    "skip-word": Meaning("the commit message asks to skip it"),
    "carried": Meaning("it succeeded in an earlier run, which this one does again"),
    "no-flow-file": Meaning("there is no flow file at the commit", "keepflow init"),
    "no-match": Meaning("no flow starts for what happened", "keepflow plan says why"),
    "merge-conflict": Meaning("the pull request cannot be merged, so there is nothing to build", "merge its base"),
    "no-secret": Meaning("a step names a secret that this run may not have", "keepflow secret ls"),
    "image-not-allowed": Meaning("an image may not become a release of this project", "see `images` of the project"),
    "no-environment": Meaning("the project has no environment of this name", "keepflow environments"),
    "promote-only": Meaning("the environment takes promoted releases only", "keepflow promote"),
    "branch-not-allowed": Meaning("the environment does not take this branch", "see `branches` of the environment"),
    "name-too-long": Meaning(
        "the name of an environment with an instance for each branch is too long", "give the environment a shorter name"
    ),
    "instance-taken": Meaning("another branch has the place that this one would get", "rename one of the branches"),
    "no-host": Meaning("the environment has other hosts now than when the run was made", _AGAIN),
    "no-release": Meaning("the run built no image that can be deployed there", _FLOW),
    "secret-missing": Meaning("a secret of the environment has no value yet", "keepflow secret set"),
    "stopped-after": Meaning("an earlier host of the environment failed, so this one was not touched"),
    "order-expired": Meaning("the order was not taken in time; a new one is made"),
    "restored": Meaning("the master was restored from a backup and does not know how it went on"),
    "settled": Meaning("what had been unknown has been read since"),
    "not-approved": Meaning("it is somebody else's code, and nobody let it begin in time", "keepflow replay"),
    "approved": Meaning("a person answered its question with yes"),
    "lapsed": Meaning("nobody approved it in time", "keepflow gate --open"),
    "promoted": Meaning("it was promoted"),
    "rejected": Meaning("a tester rejected it"),
    "local": Meaning("it ran on a developer's machine, where this is not done"),
    "told": Meaning("the channel took the message"),
    "nobody": Meaning("nobody is told of this"),
}


def meaning(code: str) -> Meaning:
    """Return what a code means; a code of a newer version, or of a deployment's agent, means nothing more here."""
    return MEANINGS.get(code, Meaning(""))
