"""Secrets are compared in constant time: nowhere in the server by `==` or `in`, which end at the first difference.

The check is by name: what is called a token, password, hash or the like is taken to be a secret, or to be made of one.
Where such a name is something else, `NOT_SECRET` says what. Comparisons in dictionaries and in PostgreSQL are not by
`==` in this sense: API keys are found by their prefix, tickets and codes by an id or at Supabase Auth.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import server

ROOT = Path(server.__file__).parent
SECRET = re.compile(
    r"(^|_)(token|secret|secret_value|password|passphrase|credential|ticket|proof|signature|hash|digest|hexdigest|hmac|mac"
    r"|fingerprint|api_key|secret_key|encrypted_key|service_key|anon_key|master_key|otp|nonce)$"
)
PLAIN = re.compile(r"^(is|has|needs|requires)_")

NOT_SECRET: dict[str, str] = {
    "adapters/litellm/keys.py: other != fingerprint(key)": "LiteLLM's list of a user's keys, and the one we made",
    "adapters/litellm/spend_log.py: row['api_key'] != key_hash": "LiteLLM's log, and the key that was asked for",
    "adapters/supabase/tokens.py: digest not in self._known": "a look-up by the SHA-256 of what was sent",
    "auth/api_keys.py: secret_hash not in self._recent": "a look-up by the SHA-256 of what was sent",
    "auth/reauthentication.py: proof.method not in NO_PROOF": "names of ways to sign in",
    "doctor/configuration.py: previous == settings.secret_key": "two settings, compared by a command of the operator",
    "provisioning/key_health.py: now.encrypted_key == seen.encrypted_key": "two rows of ours",
    "provisioning/steps.py: account.config_hash != template.hash": "no secret: which version of the agent's settings",
    "streaming/credential_watch.py: connection.credential in ended": "ids of sign-ins and keys, which are no secrets",
    "stack/environments.py: (folder / STAMP).read_text() == digest": "no secret: which packages are installed",
    "stack/litellm.py: self._client_stamp.read_text() == self._client_digest()": "no secret: which client is generated",
}
"""`file: comparison` → why an observer of its duration learns nothing."""


def names_of(operand: ast.expr) -> Iterator[str]:
    """The names by which a compared value is called: of the variable, attribute, field or function."""
    match operand:
        case ast.Name(name) | ast.Attribute(attr=name) | ast.Subscript(slice=ast.Constant(value=str(name))):
            yield name
        case ast.Call(func=function, args=arguments):
            yield from names_of(function)
            if isinstance(function, ast.Attribute) and function.attr in ("get", "encode", "strip", "lower"):
                yield from names_of(function.value)
                yield from (
                    one.value for one in arguments if isinstance(one, ast.Constant) and isinstance(one.value, str)
                )
        case ast.BoolOp(values=parts) | ast.Tuple(elts=parts) | ast.List(elts=parts) | ast.Set(elts=parts):
            for part in parts:
                yield from names_of(part)
        case ast.NamedExpr(value=value) | ast.Await(value=value):
            yield from names_of(value)


def is_secret(operand: ast.expr) -> bool:
    return any(SECRET.search(name.lower()) and not PLAIN.match(name) for name in names_of(operand))


def comparisons(path: Path) -> Iterator[str]:
    """The comparisons of secrets in a file. With None, a constant or a length they tell nothing."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Compare):
            continue
        operands = [node.left, *node.comparators]
        if not any(isinstance(one, ast.Eq | ast.NotEq | ast.In | ast.NotIn) for one in node.ops):
            continue
        if any(isinstance(operand, ast.Constant) for operand in operands):
            continue
        if any(map(is_secret, operands)):
            yield ast.unparse(node)


def test_no_secret_is_compared_in_a_time_that_tells_how_much_of_it_is_right() -> None:
    files = sorted(ROOT.rglob("*.py"))
    found = {f"{path.relative_to(ROOT)}: {comparison}" for path in files for comparison in comparisons(path)}
    assert found == set(NOT_SECRET)


def test_a_comparison_of_secrets_is_found(tmp_path: Path) -> None:
    (tmp_path / "one.py").write_text(
        "stored.secret_hash == _hash(text)\n"
        "if form['token'] in settings.tokens or request.headers.get('X-Token') != key.get_secret_value(): ...\n"
        "hashlib.sha256(text).hexdigest() == found\n"
        "token is None or token == '' or len(token) != 3 or has_token == other or compare_digest(token, other)\n"
    )
    assert set(comparisons(tmp_path / "one.py")) == {
        "stored.secret_hash == _hash(text)",
        "form['token'] in settings.tokens",
        "request.headers.get('X-Token') != key.get_secret_value()",
        "hashlib.sha256(text).hexdigest() == found",
    }
