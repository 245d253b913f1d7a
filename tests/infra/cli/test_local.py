import json
import signal
import subprocess
import sys

from tests.support import ECHO


def test_local_json_prints_only_one_line_of_addresses(make_project):
    project = make_project({"echo": ECHO}, **{"lambda": {"defaults": {"sqs": {}}}})
    command = [sys.executable, "-m", "dspy_lambda_infra.cli", "local", "--project", str(project), "--json"]
    with subprocess.Popen([*command, "--port", "0", "--model-server"], stdout=-1, stderr=-1, text=True) as process:
        try:
            found = json.loads(process.stdout.readline())
        finally:
            process.send_signal(signal.SIGTERM)
        rest, _ = process.communicate(timeout=60)
    assert rest == ""
    address = found["address"]
    assert address.startswith("http://")
    assert (found["kind"], found["programs"]) == ("rest", {"Echo": f"{address}/Echo"})
    assert found["queues"]["Echo"]["url"].startswith(found["sqs"])
    assert found["queues"]["Echo"]["dead_letter_url"].startswith(found["sqs"])
