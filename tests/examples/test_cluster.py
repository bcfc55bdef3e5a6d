"""The files that bring a cluster up are valid, agree with each other, and call commands and options that there are."""

import re
import shlex
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

import jsonschema
import kubernetes_validate
import pytest
import typer
import yaml

from stabletune.cli import app
from stabletune.config import load_config

pytestmark = pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecatedSince20")  # of ray.scripts

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "examples" / "cluster"
DOCKERFILE = (ROOT / "Dockerfile").read_text()
COMPOSE = yaml.safe_load((FOLDER / "compose.yaml").read_text())
LAUNCHER = yaml.safe_load((FOLDER / "cluster.yaml").read_text())
CLAIM, RAYJOB = yaml.safe_load_all((FOLDER / "rayjob.yaml").read_text())
README = (FOLDER / "README.md").read_text()
KUBERAYS_DEFINITION = (
    "https://raw.githubusercontent.com/ray-project/kuberay/v1.5.1/helm-chart/kuberay-operator/crds/ray.io_rayjobs.yaml"
)


def mapping(required=(), **fields):
    return {"type": "object", "properties": fields, "required": list(required), "additionalProperties": False}


def listing(items):
    return {"type": "array", "items": items, "minItems": 1}


TEXT, WHOLE, SWITCH = {"type": "string"}, {"type": "integer"}, {"type": "boolean"}
TEXTS = {"type": "object", "additionalProperties": TEXT}
POD_TEMPLATE = {"type": "object"}  # judged by Kubernetes's own schema
# The fields of KubeRay's RayJob that the example uses, looked up in the types of its ray.io/v1; any other is a mistake
# until it is looked up.
RAYJOB_FIELDS = mapping(
    ["apiVersion", "kind", "metadata", "spec"],
    apiVersion={"const": "ray.io/v1"},
    kind={"const": "RayJob"},
    metadata=mapping(["name"], name={"type": "string", "pattern": "^[a-z0-9-]{1,47}$"}),
    spec=mapping(
        ["entrypoint", "rayClusterSpec"],
        entrypoint=TEXT,
        backoffLimit=WHOLE,
        shutdownAfterJobFinishes=SWITCH,
        ttlSecondsAfterFinished=WHOLE,
        rayClusterSpec=mapping(
            ["headGroupSpec"],
            rayVersion=TEXT,
            authOptions=mapping(["mode"], mode={"enum": ["disabled", "token"]}),
            headGroupSpec=mapping(["rayStartParams", "template"], rayStartParams=TEXTS, template=POD_TEMPLATE),
            workerGroupSpecs=listing(
                mapping(
                    ["groupName", "minReplicas", "maxReplicas", "rayStartParams", "template"],
                    groupName=TEXT,
                    replicas=WHOLE,
                    minReplicas=WHOLE,
                    maxReplicas=WHOLE,
                    rayStartParams=TEXTS,
                    template=POD_TEMPLATE,
                )
            ),
        ),
    ),
)


def option(words, name):
    return next(word.partition("=")[2] for word in words if word.startswith(f"--{name}="))


def commands_of(text):
    """Every command line of `stabletune` or `ray` in a text, as words; folded lines are one."""
    return [
        shlex.split(line)
        for line in re.findall(r"(?:^|[\s;'/])((?:stabletune|ray) [a-z][^;'#\n]*)", text, flags=re.MULTILINE)
    ]


def everything_run():
    launcher = [*LAUNCHER["head_start_ray_commands"], *LAUNCHER["worker_start_ray_commands"]]
    indented = "\n".join(line.strip() for line in README.splitlines() if line.startswith("    "))
    text = "\n".join([RAYJOB["spec"]["entrypoint"], *launcher, indented])
    found = [*commands_of(text), *(service["entrypoint"] for service in COMPOSE["services"].values())]
    return [
        *found,
        [
            "stabletune",
            *re.search(r'HEALTHCHECK .* CMD \["stabletune", (.*)\]', DOCKERFILE)[1].replace('"', "").split(", "),
        ],
    ]


def test_every_command_and_option_is_one_that_there_is():
    from ray.scripts.scripts import cli as ray

    programs = {"stabletune": typer.main.get_command(app), "ray": ray}
    found = everything_run()
    assert {(words[0], words[1]) for words in found} >= {
        ("stabletune", "submit"),
        ("stabletune", "search"),
        ("stabletune", "list"),
        ("ray", "start"),
        ("ray", "up"),
    }
    for program, name, *words in found:
        command = programs[program].commands[name]
        options = {option for parameter in command.params for option in parameter.opts}
        assert {word.partition("=")[0] for word in words if word.startswith("--")} <= options, (program, name, words)


def test_what_is_searched_in_the_examples_is_there():
    files = [word for _, name, *words in everything_run() if name in ("search", "submit") for word in words]
    configs = [word for word in files if word.endswith("diabetes/config.yaml")]
    assert len(configs) == 3
    for path in configs:
        load_config(ROOT / path.removeprefix("/opt/stabletune/"))


def test_rays_launcher_accepts_its_file():
    from ray.autoscaler._private.util import prepare_config, validate_config

    validate_config(prepare_config(LAUNCHER))
    workers = LAUNCHER["available_node_types"]["worker"]
    assert workers["min_workers"] == workers["max_workers"] == LAUNCHER["max_workers"]


@pytest.mark.parametrize("key", ["head_start_ray_commands", "worker_start_ray_commands"])
def test_the_launcher_starts_ray_where_jobs_find_stabletune(key):
    venv = re.search(r"venv (\S+)$", LAUNCHER["setup_commands"][0])[1]
    assert all(command.startswith(f"export PATH={venv}/bin:$PATH ") for command in LAUNCHER[key])


def test_the_rayjob_has_no_field_that_kuberay_does_not_know():
    unknown = [error.message for error in jsonschema.Draft202012Validator(RAYJOB_FIELDS).iter_errors(RAYJOB)]
    assert unknown == []
    misspelt = {**RAYJOB, "spec": {**RAYJOB["spec"], "entryPoint": "x"}}
    assert not jsonschema.Draft202012Validator(RAYJOB_FIELDS).is_valid(misspelt)


def closed(schema):
    """The same schema, in which an object has no field but those that are listed: Kubernetes would drop it."""
    if isinstance(schema, list):
        return [closed(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    inside = {key: closed(value) for key, value in schema.items()}
    if isinstance(inside.get("properties"), dict) and not inside.get("x-kubernetes-preserve-unknown-fields"):
        inside.setdefault("additionalProperties", False)
    return inside


def test_kuberays_own_definition_accepts_the_rayjob():
    try:
        with urllib.request.urlopen(KUBERAYS_DEFINITION, timeout=10) as answer:
            definition = yaml.safe_load(answer)
    except (urllib.error.URLError, TimeoutError) as error:
        pytest.skip(f"KubeRay's definition cannot be reached: {error}")
    (version,) = (version for version in definition["spec"]["versions"] if version["name"] == "v1")
    schema = closed(version["schema"]["openAPIV3Schema"])
    schema["properties"]["metadata"] = mapping(["name"], name=TEXT)
    assert [error.message for error in jsonschema.Draft202012Validator(schema).iter_errors(RAYJOB)] == []


def test_kubernetes_accepts_the_claim_and_the_pods():
    spec = RAYJOB["spec"]["rayClusterSpec"]
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "any"}}
    templates = [group["template"] for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"])]
    for document in (CLAIM, *({**pod, **template} for template in templates)):
        kubernetes_validate.validate(document, kubernetes_validate.latest_version(), strict=True)
    (container,) = templates[0]["spec"]["containers"]
    misspelt = {**pod, "spec": {"containers": [{**container, "volumeMount": []}]}}
    with pytest.raises(kubernetes_validate.ValidationError, match="volumeMount"):
        kubernetes_validate.validate(misspelt, kubernetes_validate.latest_version(), strict=True)


def test_the_operator_is_new_enough_for_what_the_rayjob_asks_of_it():
    """Tokens came with KubeRay 1.5.1, retries with 1.2."""
    named = re.search(r"KubeRay operator \(([\d.]+) or newer\)", (FOLDER / "rayjob.yaml").read_text())[1]
    assert named == re.search(r"kuberay/v([\d.]+)/", KUBERAYS_DEFINITION)[1]


def test_all_three_ask_for_a_token():
    for service in COMPOSE["services"].values():
        assert service["environment"]["RAY_AUTH_MODE"] == "token"
        assert service["environment"]["RAY_AUTH_TOKEN"].startswith("${RAY_AUTH_TOKEN:?")
    assert LAUNCHER["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"
    for key in ("head_start_ray_commands", "worker_start_ray_commands"):
        assert all("RAY_AUTH_MODE=token; " in command for command in LAUNCHER[key])
    assert RAYJOB["spec"]["rayClusterSpec"]["authOptions"] == {"mode": "token"}


def test_the_rayjob_writes_its_results_to_the_claim_and_goes_on_there():
    pod = RAYJOB["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]
    (mount,) = pod["containers"][0]["volumeMounts"]
    words = shlex.split(RAYJOB["spec"]["entrypoint"])
    assert words[words.index("--output") + 1].startswith(f"{mount['mountPath']}/")
    assert "--resume" in words
    assert pod["volumes"][0]["persistentVolumeClaim"]["claimName"] == CLAIM["metadata"]["name"]


def test_the_rayjobs_start_parameters_are_options_of_ray_start():
    from ray.scripts.scripts import start

    spec = RAYJOB["spec"]["rayClusterSpec"]
    named = {name for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]) for name in group["rayStartParams"]}
    assert {f"--{name}" for name in named} <= {option for parameter in start.params for option in parameter.opts}


def test_compose_has_one_head_two_workers_and_one_image():
    services = COMPOSE["services"]
    assert set(services) == {"head", "worker-1", "worker-2"}
    assert len({service["image"] for service in services.values()}) == 1
    assert [name for name, service in services.items() if "build" in service] == ["head"]
    assert (FOLDER / services["head"]["build"] / "Dockerfile").resolve() == ROOT / "Dockerfile"


def test_composes_ports_agree():
    head, worker = COMPOSE["services"]["head"], COMPOSE["services"]["worker-1"]
    dashboard = option(head["entrypoint"], "dashboard-port")
    assert head["ports"] == [f"127.0.0.1:{dashboard}:{dashboard}"]
    assert option(worker["entrypoint"], "address") == f"head:{option(head['entrypoint'], 'port')}"
    assert urlsplit(head["healthcheck"]["test"][-1]).port == int(dashboard)
    agent = option(worker["entrypoint"], "dashboard-agent-listen-port")
    assert urlsplit(worker["healthcheck"]["test"][-1]).port == int(agent)


def test_workers_wait_for_a_head_that_is_healthy_and_every_check_calls_what_the_image_has():
    services = COMPOSE["services"]
    for name in ("worker-1", "worker-2"):
        assert services[name]["depends_on"] == {"head": {"condition": "service_healthy"}}
    called = {service["healthcheck"]["test"][1] for service in services.values()}
    installed = re.search(r"apt-get install --yes --no-install-recommends (.*?) \\", DOCKERFILE)[1].split()
    assert called <= set(installed)


def test_the_image_is_not_root_and_copies_what_there_is():
    assert re.findall(r"^USER (\S+)$", DOCKERFILE, flags=re.MULTILINE) == ["1000:1000"]
    assert "ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu\n" in DOCKERFILE
    assert '".[cluster]"' in DOCKERFILE
    for sources in re.findall(r"^COPY (.*) \S+$", DOCKERFILE, flags=re.MULTILINE):
        assert all((ROOT / source).exists() for source in sources.split())
