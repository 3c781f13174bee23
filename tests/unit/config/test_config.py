from __future__ import annotations

import itertools
import re
import tomllib
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmd import config
from llmd.config.address import Address, parse_address
from llmd.errors import ConfigError

ETC = Path(__file__).parents[3] / "etc"
OPTION = re.compile(r"^#(?=[a-z])", re.MULTILINE)


def write(folder: Path, text: str, *parts: tuple[str, str]) -> Path:
    """Write a main file and its parts. Return the main file."""
    file = folder / "llmd.toml"
    file.write_text(text)
    (folder / "conf.d").mkdir(exist_ok=True)
    for name, part in parts:
        (folder / "conf.d" / name).write_text(part)
    return file


def refusal(folder: Path, text: str, *parts: tuple[str, str]) -> str:
    """Return the message with which these files are refused."""
    with pytest.raises(ConfigError) as caught:
        config.load(write(folder, text, *parts))
    return caught.value.message


def test_empty_file_takes_every_default(tmp_path: Path) -> None:
    """A file without options results in the default configuration."""
    assert config.load(write(tmp_path, "")) == config.Config()


@pytest.mark.parametrize("file", sorted(ETC.glob("*.toml")), ids=lambda file: file.name)
def test_shipped_file_loads(file: Path) -> None:
    """Each file in etc/ is valid as it is shipped."""
    config.load(file)


@pytest.mark.parametrize("file", sorted(ETC.glob("*.toml")), ids=lambda file: file.name)
def test_shipped_file_loads_with_every_option(file: Path, tmp_path: Path) -> None:
    """Each file in etc/ stays valid when all its commented options are uncommented."""
    config.load(write(tmp_path, OPTION.sub("", file.read_text())))


def test_reference_shows_every_option_with_its_default() -> None:
    """The options of etc/llmd.toml, uncommented, are exactly the defaults."""
    shown = tomllib.loads(OPTION.sub("", (ETC / "llmd.toml").read_text()))
    assert shown == tomllib.loads(config.to_toml(config.Config()))


def test_reference_explains_every_option() -> None:
    """Each option of etc/llmd.toml follows a comment."""
    lines = (ETC / "llmd.toml").read_text().splitlines()
    bare = [
        line
        for before, line in itertools.pairwise(lines)
        if OPTION.match(line) and not before.startswith("# ")
    ]
    assert bare == []


def test_parts_are_merged_in_the_order_of_their_names(tmp_path: Path) -> None:
    """Tables of conf.d are merged; a scalar or list in a later file replaces the earlier one."""
    loaded = config.load(
        write(
            tmp_path,
            '[server]\nmax_streams = 2\nlisten = ["127.0.0.1:1", "127.0.0.1:2"]\n',
            ("20-b.toml", '[server]\nmax_queue = 7\nlisten = ["127.0.0.1:3"]\n'),
            ("10-a.toml", "[server]\nmax_queue = 6\n[engine]\nbatch = 512\n"),
            (".30-c.toml", "[server]\nmax_queue = 8\n"),
            ("note.txt", "not toml"),
        )
    )
    assert loaded.server.max_streams == 2
    assert loaded.server.listen == ("127.0.0.1:3",)
    assert loaded.server.max_queue == 7
    assert loaded.engine.batch == 512


def test_error_names_the_file_that_set_the_option(tmp_path: Path) -> None:
    """The message for a wrong value names the part that set it, the option and its range."""
    message = refusal(tmp_path, "", ("10-a.toml", "[server]\nmax_streams = 300\n"))
    assert message == (
        f"{tmp_path}/conf.d/10-a.toml: server.max_streams: "
        "must be a whole number from 1 to 256, not 300"
    )


def test_all_wrong_options_are_listed(tmp_path: Path) -> None:
    """One load reports all wrong options of all files, one per line."""
    message = refusal(
        tmp_path,
        '[server]\nmax_steams = 3\ndrain_s = -1\n[log]\nlevel = "loud"\n',
        ("a.toml", "[tuning]\nx = 1\n[models]\ndir = 5\n"),
    )
    lines = [line.removeprefix(f"{tmp_path}/") for line in message.splitlines()]
    sections = "server, store, models, engine, cache, auth, log"
    assert sorted(lines) == [
        f"conf.d/a.toml: [tuning]: unknown section: use one of {sections}",
        "conf.d/a.toml: models.dir: must be an absolute path, not 5",
        'llmd.toml: log.level: must be one of "debug", "error", "info", "warning"',
        "llmd.toml: server.drain_s: must be a number from 0 to 600, not -1",
        "llmd.toml: server.max_steams: unknown option: did you mean max_streams?",
    ]


@pytest.mark.parametrize(
    ("section", "line"),
    [
        ("server", "listen = []"),
        ("server", 'listen = "0.0.0.0:5000"'),
        ("server", 'listen = ["0.0.0.0:65536"]'),
        ("server", 'listen = ["5000"]'),
        ("server", "max_streams = 0"),
        ("server", "max_streams = true"),
        ("server", "max_streams = 8.0"),
        ("server", "max_queue = 1025"),
        ("server", "max_body_bytes = 1023"),
        ("server", "header_deadline_s = 0.4"),
        ("server", "body_deadline_s = inf"),
        ("server", "drain_s = nan"),
        ("server", 'allowed_hosts = ["http://x/"]'),
        ("server", 'cors_origins = ["https://x/path"]'),
        ("server", 'cors_origins = ["chat.example.org"]'),
        ("store", 'url = "/var/lib/llmd.db"'),
        ("models", 'dir = "models"'),
        ("models", 'default = "../x.gguf"'),
        ("engine", 'library_dir = "engine"'),
        ("engine", "threads = -1"),
        ("engine", "context = 255"),
        ("engine", "parallel = 257"),
        ("engine", "batch = 99999999999999999999999"),
        ("engine", 'kv_type = "q4_0"'),
        ("engine", "kv_unified = 1"),
        ("engine", 'flash_attention = "yes"'),
        ("cache", "ram_bytes = -1"),
        ("auth", 'argon2 = "none"'),
        ("auth", "cache_ttl_s = 0"),
        ("log", 'prompts = "no"'),
        ("log", "level = 1979-05-27"),
    ],
)
def test_value_out_of_range_is_refused_with_the_range(
    section: str, line: str, tmp_path: Path
) -> None:
    """The message for a wrong value has the file, the option and its range."""
    message = refusal(tmp_path, f"[{section}]\n{line}\n")
    key = line.partition(" ")[0]
    assert message.startswith(f"{tmp_path}/llmd.toml: {section}.{key}: ")
    assert "must be " in message or '"host:port"' in message


def test_every_option_has_a_description_of_its_range(tmp_path: Path) -> None:
    """For each option, the message for a value of the wrong type describes the range."""
    for section in msgspec.structs.fields(config.Config):
        for option in msgspec.structs.fields(section.type):
            message = refusal(tmp_path, f"[{section.name}]\n{option.name} = {{}}\n")
            assert f"{section.name}.{option.name}: must be " in message


def test_database_password_is_not_repeated(tmp_path: Path) -> None:
    """Neither an error nor the printed configuration contains the password of the database."""
    assert "hunter2" not in refusal(tmp_path, '[store]\nurl = "PG://llmd:hunter2@db/llmd"\n')
    for url in ["llmd:hunter2@db/llmd", "llmd:a/hunter2@b@db/llmd", "db/llmd?password=hunter2"]:
        loaded = config.load(write(tmp_path, f'[store]\nurl = "postgresql+psycopg://{url}"\n'))
        assert "***" in config.to_toml(loaded)
        assert "hunter2" not in config.to_toml(loaded)


def test_context_too_small_for_its_sequences_is_refused(tmp_path: Path) -> None:
    """The context must have 128 tokens for each sequence. The message names the file."""
    message = refusal(tmp_path, "", ("a.toml", "[engine]\nparallel = 8\ncontext = 1023\n"))
    assert message.startswith(f"{tmp_path}/conf.d/a.toml: engine.context: 1023 tokens")
    assert "at least 1024" in message
    config.load(write(tmp_path, "", ("a.toml", "[engine]\nparallel = 8\ncontext = 1024\n")))


def test_quantised_kv_needs_flash_attention(tmp_path: Path) -> None:
    """llama.cpp refuses a quantised KV cache without flash attention, so llmd does too."""
    text = '[engine]\nkv_type = "q8_0"\nflash_attention = '
    message = refusal(tmp_path, text + '"off"\n')
    assert message.startswith(f'{tmp_path}/llmd.toml: engine.flash_attention: "off" works only')
    config.load(write(tmp_path, text + '"auto"\n'))


def test_error_about_a_missing_file_says_how_to_create_it(tmp_path: Path) -> None:
    """The main file must exist. The message says what to do."""
    with pytest.raises(ConfigError, match="no such file: create it"):
        config.load(tmp_path / "llmd.toml")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"[server\n", "not TOML"),
        (b"[server]\nlisten = 1\nlisten = 2\n", "not TOML"),
        (b"server = 5\n", "write [server] above"),
        (b"\xff\xfe", "not UTF-8"),
        (b"a = " + b"[" * 100_000, "not TOML"),
    ],
)
def test_broken_file_is_refused_by_name(content: bytes, words: str, tmp_path: Path) -> None:
    """A file that is not TOML with tables is refused with its name and the cause."""
    file = tmp_path / "llmd.toml"
    file.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        config.load(file)
    assert str(file) in caught.value.message
    assert words in caught.value.message


def test_folder_in_place_of_a_file_is_refused(tmp_path: Path) -> None:
    """A folder with the name of a part is an error of the configuration."""
    write(tmp_path, "")
    (tmp_path / "conf.d" / "x.toml").mkdir()
    with pytest.raises(ConfigError, match="cannot be read"):
        config.load(tmp_path / "llmd.toml")


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("0.0.0.0:5000", "0.0.0.0", 5000),
        ("[::]:5000", "::", 5000),
        ("[fe80::1]:1", "fe80::1", 1),
        ("localhost:0", "localhost", 0),
        ("llm.example.org:65535", "llm.example.org", 65535),
    ],
)
def test_address_is_split(text: str, host: str, port: int) -> None:
    """An address consists of a host, without brackets, and a port."""
    assert parse_address(text) == Address(host=host, port=port)


@pytest.mark.parametrize(
    "text",
    ["", ":5000", "5000", "::1:5000", "[::1]", "[x]:1", "a b:1", "h:-1", "h:65536", "h:٣", "h:1\n"],
)
def test_other_text_is_not_an_address(text: str) -> None:
    """Text that is not host:port with a port of 16 bits is refused."""
    with pytest.raises(ConfigError, match="host:port"):
        parse_address(text)


@given(name=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="/\0")))
def test_printed_configuration_can_be_read(name: str) -> None:
    """The printed configuration is TOML with the same values, for any file name."""
    shown = config.Config(models=config.Models(default=name))
    read = msgspec.convert(tomllib.loads(config.to_toml(shown)), config.Config)
    assert read == shown


def test_configuration_cannot_be_changed() -> None:
    """A section keeps the values that were checked."""
    with pytest.raises(AttributeError):
        config.Config().server.max_streams = 9  # type: ignore[misc]


def test_credentials_are_read_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Credentials are read from beside the file or from systemd, never from both."""
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    file = tmp_path / "llmd.toml"
    file.write_text('[models]\ndefault = "a.gguf"\n')
    credentials = tmp_path / "from systemd"
    for folder, name in ((tmp_path / "credentials", "x"), (credentials, "llmd_x")):
        folder.mkdir()
        (folder / f"{name}.toml").write_text(f'[models]\ndefault = "{name}.gguf"\n')
    (credentials / "other.toml").write_text("not for us")
    assert config.load(file).models.default == "x.gguf"
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(credentials))
    assert config.load(file).models.default == "llmd_x.gguf"


def test_a_byte_order_mark_is_read_over(tmp_path: Path) -> None:
    """A file that begins with a byte order mark is read like one without, also in conf.d."""
    file, part = tmp_path / "llmd.toml", tmp_path / "conf.d" / "a.toml"
    part.parent.mkdir()
    file.write_bytes(b"\xef\xbb\xbf[server]\nmax_streams = 3\n")
    part.write_bytes(b"\xef\xbb\xbf[server]\nmax_queue = 5\n")
    server = config.load(file).server
    assert (server.max_streams, server.max_queue) == (3, 5)
