"""Keep one comment on the pull request that a run of GitHub's is for: `python comment.py REPORT.md`.

The pull request is that of the event, or of the run that started this one (`workflow_run`): then it is looked up by the
head that GitHub names, and nothing that the other run wrote says where the comment goes. Uses the environment of a
runner: GITHUB_API_URL, GITHUB_REPOSITORY, GITHUB_EVENT_PATH, GITHUB_TOKEN. Needs nothing but Python.
Source: GitHub's REST API, 2022-11-28.
"""

import json
import os
import re
import sys
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

MARKER = "<!-- vkfuse report -->"
PAGE = 100  # of comments, the most that GitHub gives at once
MOST = 65_536  # characters of a comment
SECONDS = 30


def main() -> int:
    """Write the comment, or say why there is none to write."""
    event = json.loads(Path(os.environ["GITHUB_EVENT_PATH"]).read_text("utf-8"))
    number = pull_request(event)
    if number is None:
        print("no open pull request: no comment")
        return 0
    body = f"{MARKER}\n{Path(sys.argv[1]).read_text('utf-8')}"[:MOST]
    known = next(ours(number), None)
    if known is None:
        call("POST", f"issues/{number}/comments", {"body": body})
    else:
        call("PATCH", f"issues/comments/{known}", {"body": body})
    print(f"comment on pull request {number}: {'new' if known is None else 'updated'}")
    return 0


def pull_request(event: dict[str, Any]) -> int | None:
    """The number of the pull request of an event, or of the run that started it where that head is still its head."""
    if "pull_request" in event:
        return int(event["pull_request"]["number"])
    run = event.get("workflow_run")
    if run is None or run["event"] != "pull_request":
        return None
    head = f"{run['head_repository']['owner']['login']}:{run['head_branch']}"
    query = urllib.parse.urlencode({"state": "open", "head": head})
    found = [
        pull["number"] for pull in call("GET", f"pulls?{query}") if pull["head"]["sha"] == run["head_sha"]
    ]
    return int(found[0]) if found else None


def ours(number: int) -> Iterator[int]:
    """Comments that a bot wrote and that begin as ours do."""
    page = 1
    while True:
        comments = call("GET", f"issues/{number}/comments?per_page={PAGE}&page={page}")
        for comment in comments:
            if comment["user"]["type"] == "Bot" and comment["body"].startswith(MARKER):
                yield int(comment["id"])
        if len(comments) < PAGE:
            return
        page += 1


def call(method: str, path: str, body: dict[str, str] | None = None) -> Any:
    """Ask GitHub about this repository."""
    repository = os.environ["GITHUB_REPOSITORY"]
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repository):
        raise SystemExit(f"not a repository: {repository}")
    api = os.environ.get("GITHUB_API_URL", "https://api.github.com")
    request = urllib.request.Request(  # noqa: S310 - the address is the runner's
        f"{api}/repos/{repository}/{path}",
        method=method,
        data=None if body is None else json.dumps(body).encode(),
        headers={
            "Accept": "application/vnd.github+json",
            "Authorization": f"Bearer {os.environ['GITHUB_TOKEN']}",
            "X-GitHub-Api-Version": "2022-11-28",
        },
    )
    with urllib.request.urlopen(request, timeout=SECONDS) as answer:  # noqa: S310
        return json.load(answer)


if __name__ == "__main__":
    sys.exit(main())
