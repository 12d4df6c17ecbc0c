"""What CI jobs take from here runs: the README's job and pipeline, the action, the comment, GitLab's job, the hook."""

import json
import os
import re
import shutil
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import pytest
import yaml
from workflow import ROOT, Run, shim

ACTION = yaml.safe_load((ROOT / "action.yml").read_text())
DEFAULTS = {name: given.get("default", "") for name, given in ACTION["inputs"].items()}
INSTALLED = ("Install",)  # steps that only install


def _blocks(path, language):
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / path).read_text(), re.DOTALL)


@pytest.fixture
def place(files, tmp_path):
    """A folder with a model, the one before, and one that does not load."""
    folder = tmp_path / "work"
    folder.mkdir()
    for name, source in (("model", "fused"), ("released", "folded"), ("broken", "unfused")):
        shutil.copy(files / f"{source}.pte", folder / f"{name}.pte")
    return folder


@pytest.fixture
def path(tmp_path):
    """Where `vkfuse` is."""
    return shim(tmp_path / "bin")


def test_the_job_of_the_readme(place, path):
    """The job passes a model that loads and shrank, writes the page and the summary, and fails one that does not load."""
    (job,) = (yaml.safe_load(block) for block in _blocks("README.md", "yaml"))
    steps = job["jobs"]["report"]["steps"]
    run = Run(place, path)
    assert run.steps(steps, skip=INSTALLED) == 0
    assert (place / "report.html").read_text().startswith("<!doctype html>")
    assert run.files["GITHUB_STEP_SUMMARY"].read_text().startswith("### model.pte: ")
    shutil.copy(place / "broken.pte", place / "model.pte")
    assert run.steps(steps, skip=INSTALLED) == 1
    assert "require loadable" in run.printed


def test_the_pipeline_of_the_readme(place, path):
    """The notes have the sizes of both files and the largest changes; the table the labels of all, the largest first."""
    (script,) = (block for block in _blocks("README.md", "sh") if "release-notes" in block)
    environment = {**os.environ, "PATH": f"{path}:{os.environ['PATH']}"}
    ran = subprocess.run(
        ["/bin/bash", "-c", script], cwd=place, env=environment, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    notes = (place / "release-notes.md").read_text().splitlines()
    new, base = ((place / f"{name}.pte").stat().st_size for name in ("model", "released"))
    assert notes[0] == f"Size: {base:,} -> {new:,} bytes"
    assert notes[1] == "- forward constant float32[64,64]: -16,384 bytes"
    assert len(notes) == 4
    rows = [line.split("\t") for line in ran.stdout.splitlines()]
    assert rows[0] == ["released.pte", "forward constant float32[64,64]", "16384"]


@pytest.mark.parametrize(
    ("given", "code", "told"),
    [
        ({"files": "model.pte released.pte", "arguments": "--max-growth=0 --require=loadable"}, 0, "passed"),
        ({"files": "model.pte", "arguments": "--max-size=1KiB"}, 1, "FAILED"),
        ({"files": "*.pte"}, 0, "3 files"),
        ({"files": "nothing.pte"}, 2, ""),
        ({"files": "$(touch${IFS}hacked)"}, 2, ""),
        ({"files": "model.pte", "arguments": "--max-size=1GiB;touch hacked"}, 2, ""),
    ],
)
def test_the_action(place, path, given, code, told):
    """The action ends with the report's code, leaves three files and the summary, and its inputs are no commands."""
    run = Run(place, path, {**DEFAULTS, **given})
    assert run.steps(ACTION["runs"]["steps"], skip=INSTALLED) == code, run.printed
    assert run.context["steps.report.outputs.code"] == str(code)
    assert not (place / "hacked").exists()
    if told:
        folder = place / "vkfuse-report"
        assert told in (folder / "report.md").read_text() == run.files["GITHUB_STEP_SUMMARY"].read_text()[:-1]
        assert json.loads((folder / "report.json").read_text())["schema"].startswith("vkfuse.report")
        assert (folder / "report.html").exists()


class _GitHub(BaseHTTPRequestHandler):
    """As much of GitHub's API as a comment needs, over `server.comments` and `server.pulls`."""

    def _answer(self, code, body):
        data = json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self):
        assert self.headers["Authorization"] == "Bearer token"
        asked = urlsplit(self.path)
        query = {name: value for name, (value,) in parse_qs(asked.query).items()}
        if asked.path == "/repos/o/r/pulls":
            found = [p for p in self.server.pulls if p["label"] == query["head"] and query["state"] == "open"]
            return self._answer(200, found)
        assert asked.path == "/repos/o/r/issues/7/comments"
        size, page = int(query["per_page"]), int(query["page"])
        return self._answer(200, self.server.comments[(page - 1) * size : page * size])

    def _written(self):
        return json.loads(self.rfile.read(int(self.headers["Content-Length"])))["body"]

    def do_POST(self):
        assert self.path == "/repos/o/r/issues/7/comments"
        self.server.comments.append(
            {"id": len(self.server.comments), "user": {"type": "Bot"}, "body": self._written()}
        )
        self._answer(201, {})

    def do_PATCH(self):
        self.server.comments[int(self.path.rpartition("/")[2])]["body"] = self._written()
        self._answer(200, {})

    def log_message(self, *_):
        pass


@pytest.fixture
def github():
    """A server with a pull request of a fork, and a hundred and twenty comments of people, one of whom imitates ours."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _GitHub)
    server.pulls = [{"number": 7, "label": "fork:branch", "head": {"sha": "abc"}}]
    server.comments = [
        {"id": n, "user": {"type": "User"}, "body": "<!-- vkfuse report -->"} for n in range(120)
    ]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


def _run_of(sha="abc", event="pull_request"):
    head = {"head_repository": {"owner": {"login": "fork"}}, "head_branch": "branch"}
    return {"workflow_run": {"event": event, "head_sha": sha, **head}}


@pytest.mark.parametrize(
    ("event", "comments"),
    [
        ({"pull_request": {"number": 7}}, 1),
        (_run_of(), 1),
        (_run_of(sha="other"), 0),
        (_run_of(event="push"), 0),
        ({"ref": "refs/heads/main"}, 0),
    ],
    ids=["pull request", "run of a fork", "head that moved on", "run of a push", "push"],
)
def test_one_comment_updated_in_place(place, path, github, event, comments):
    """Two runs leave one comment, with the second's text; where there is no pull request, or another head, none."""
    (place / "event.json").write_text(json.dumps(event))
    for files in ("released.pte", "model.pte"):
        run = Run(
            *(place, path, {**DEFAULTS, "files": files, "comment": "true"}),
            GITHUB_API_URL=f"http://127.0.0.1:{github.server_port}",
            GITHUB_REPOSITORY="o/r",
            GITHUB_EVENT_PATH=str(place / "event.json"),
        )
        assert run.steps(ACTION["runs"]["steps"], skip=INSTALLED) == 0, run.printed
    written = [comment["body"] for comment in github.comments[120:]]
    assert len(written) == comments
    assert all(body.startswith("<!-- vkfuse report -->\n### model.pte: ") for body in written)
    assert {comment["body"] for comment in github.comments[:120]} == {"<!-- vkfuse report -->"}


def test_gitlab_and_the_workflows(place, path):
    """GitLab's script runs, and what the workflows of docs/ci.md give to the action are inputs of it."""
    blocks = [yaml.safe_load(block) for block in _blocks("docs/ci.md", "yaml")]
    (job,) = (block["model-report"] for block in blocks if "model-report" in block)
    script = [{"run": line} for line in job["script"] if not line.startswith("pip ")]
    assert Run(place, path).steps(script) == 0
    assert all((place / name).exists() for name in job["artifacts"]["paths"])
    jobs = [one for block in blocks for one in block.get("jobs", {}).values()]
    uses = [step for one in jobs for step in one["steps"] if "vkfuse" in step.get("uses", "")]
    assert len(uses) == 2
    assert all(set(step["with"]) <= set(ACTION["inputs"]) for step in uses)
    comment = next(block for block in blocks if block.get("name") == "model comment")
    assert comment[True]["workflow_run"]["workflows"] == ["model"]
    assert not any("checkout" in step.get("uses", "") for step in comment["jobs"]["comment"]["steps"])


def test_the_hook(place, path):
    """The hook passes what loads and fails what does not."""
    (hook,) = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())
    assert re.search(hook["files"], "out/model.pte")
    run = Run(place, path)
    assert run.steps([{"run": f"{hook['entry']} model.pte released.pte"}]) == 0
    assert run.steps([{"run": f"{hook['entry']} model.pte broken.pte"}]) == 1
    assert "broken.pte: require loadable" in run.printed


def test_completion(path):
    """The shell asks for commands and for options."""
    for words, wanted in (
        ("vkfuse rep", {"report"}),
        ("vkfuse report --max-g", {"--max-growth", "--max-growth-of"}),
    ):
        ran = subprocess.run(
            [path / "vkfuse"],
            env={
                **os.environ,
                "COMP_WORDS": words,
                "COMP_CWORD": str(len(words.split()) - 1),
                "_VKFUSE_COMPLETE": "complete_bash",
            },
            capture_output=True,
            text=True,
            check=False,
        )
        assert set(ran.stdout.split()) == wanted
