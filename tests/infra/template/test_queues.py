from tests.infra.template.support import statements
from tests.support import AECHO, ECHO


def test_queues_outlive_the_stack(make):
    found = make({"defaults": {"sqs": {}}})
    queues = [resource for resource in found.values() if resource["Type"] == "AWS::SQS::Queue"]
    assert len(queues) == 3
    assert all((q["DeletionPolicy"], q["UpdateReplacePolicy"]) == ("RetainExceptOnCreate", "Retain") for q in queues)


def test_one_policy_requires_tls_for_every_queue(make):
    found = make({"defaults": {"sqs": {}}}, {"echo": ECHO, "aecho": AECHO})
    (policy,) = (r["Properties"] for r in found.values() if r["Type"] == "AWS::SQS::QueuePolicy")
    queues = {name for name, resource in found.items() if resource["Type"] == "AWS::SQS::Queue"}
    assert {queue["Ref"] for queue in policy["Queues"]} == queues
    (statement,) = policy["PolicyDocument"]["Statement"]
    assert (statement["Effect"], statement["Principal"], statement["Action"]) == ("Deny", "*", "sqs:*")
    assert statement["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}


def test_no_queue_redrives_into_the_on_failure_queue(make):
    assert make()["OnFailureQueue"]["Properties"]["RedriveAllowPolicy"] == {"redrivePermission": "denyAll"}


def test_a_program_without_sqs_has_no_queue_resources(make):
    found = make({"alarms": False})
    echo = {"EchoFunction", "EchoLatestInvokeConfig", "EchoRole", "EchoLogGroup"}
    assert {name for name in found if name.startswith("Echo")} == echo
    assert set(found["EchoFunction"]["Properties"]["Events"]) == {"Route"}
    assert not any("Queue" in str(r) for _, r in statements(found)[2:])
