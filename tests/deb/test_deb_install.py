"""The packages on a fresh, offline Debian system: installation, requests, and the sandbox."""

from __future__ import annotations

import json
import re
from pathlib import Path

from tests.deb.machine import Machine

PARIS = {"prompt": "What is the capital of France? Answer in one word.", "temperature": 0}


def test_llmd_answers_the_lan_after_one_command(installed: Machine) -> None:
    """After its installation llmd is enabled, runs, and answers with the created key."""
    assert installed.run("systemctl is-active llmd").strip() == "active"
    assert installed.run("systemctl is-enabled llmd").strip() == "enabled"
    answer = installed.ask("/answer", PARIS, key=installed.admin_key())
    assert "Paris" in str(answer["result"])


def test_grammars_and_vectors_work_in_the_sandbox(installed: Machine) -> None:
    """Grammars and embeddings, which need native code in the worker, work in the sandbox."""
    form = {"type": "json_schema", "json_schema": {"schema": {"enum": ["yes", "no"]}}}
    messages = [{"role": "user", "content": "Is water wet?"}]
    body = {"model": "default", "messages": messages, "response_format": form}
    answer = installed.ask("/v1/chat/completions", body, key=installed.admin_key())
    assert re.search(r'"content": ?"\\"(yes|no)\\""', json.dumps(answer))
    vectors = installed.ask("/v1/embeddings", {"input": ["a", "b"]}, key=installed.admin_key())
    assert json.dumps(vectors).count('"embedding"') == 4


def test_the_journal_has_the_start_and_no_warnings(installed: Machine) -> None:
    """The journal reports the start with the selected CPU code, and has no warnings."""
    journal = installed.journal("-o cat")
    assert "is ready" in journal
    assert re.search(r"CPU code \w+", journal)
    assert installed.journal("-p warning") == ""
    assert "Traceback" not in journal


def test_the_journal_can_be_searched_by_fields(installed: Machine) -> None:
    """The journal finds requests by their status and path."""
    key = installed.admin_key()
    installed.ask("/auth", key=key)
    assert "GET /auth 200" in installed.journal("-o cat LLMD_STATUS=200 LLMD_PATH=/auth")
    assert installed.journal("LLMD_STATUS=500") == ""


def test_files_are_not_readable_by_others(installed: Machine) -> None:
    """The package's files and folders have these owners and modes."""
    paths = "/etc/llmd /etc/llmd/llmd.toml /etc/llmd/admin.key /etc/llmd/credentials "
    paths += "/var/lib/llmd /var/lib/llmd/llmd.db /var/cache/llmd"
    assert installed.run(f"stat -c '%a %U:%G %n' {paths}").splitlines() == [
        "750 root:llmd /etc/llmd",
        "640 root:llmd /etc/llmd/llmd.toml",
        "600 root:root /etc/llmd/admin.key",
        "700 root:root /etc/llmd/credentials",
        "750 llmd:llmd /var/lib/llmd",
        "600 llmd:llmd /var/lib/llmd/llmd.db",
        "750 llmd:llmd /var/cache/llmd",
    ]
    assert installed.run("dpkg -V llmd llmd-model-smollm2") == ""


def test_the_unit_has_a_low_exposure(installed: Machine) -> None:
    """The unit's exposure by systemd's rating is 1.5 or less, and it has no mistakes."""
    exposure = installed.run("systemd-analyze security llmd --no-pager | tail -n 2")
    match = re.search(r"exposure level for llmd\.service: ([0-9.]+)", exposure)
    assert match
    assert float(match[1]) <= 1.5
    assert "llmd.service" not in installed.run(
        "systemd-analyze verify llmd.service 2>&1 | grep -v 'man '; true"
    )


def test_the_sandbox_allows_only_what_the_daemon_needs(installed: Machine) -> None:
    """A program that runs instead of the daemon cannot leave the sandbox of the unit."""
    probe = Path(__file__).with_name("probe.py").read_text()
    installed.run(f"cat > /usr/local/lib/probe.py <<'PROBE'\n{probe}\nPROBE")
    installed.run("echo secret > /srv/other && chmod 600 /srv/other")
    unit = "/run/systemd/system/llmd-probe.service"
    start = "/usr/bin/python3 /usr/local/lib/probe.py"
    installed.run(
        f"sed -e 's/^Type=.*/Type=oneshot/' -e 's!^ExecStart=.*!ExecStart={start}!' "
        f"-e '/^Watchdog/d' -e '/^Restart/d' /lib/systemd/system/llmd.service > {unit}"
    )
    installed.run("systemctl daemon-reload && systemctl start llmd-probe")
    output = installed.run("journalctl -u llmd-probe -o cat -q --no-pager | grep ^probe")
    assert output.splitlines() == ["probe is done"]


def test_commands_work_for_root_without_giving_a_key(installed: Machine) -> None:
    """Commands that root runs find the admin's key."""
    status = installed.run("llmd status")
    assert re.search(r"threads +\d+, \w+", status)
    assert "Paris" in installed.run("llmd ask --temperature 0 '" + str(PARIS["prompt"]) + "'")
    assert installed.run("llmd model remove SmolLM2-135M-Instruct.Q4_1.gguf 2>&1", status=1)
    assert "llmd" in installed.run(
        "bash -c '. /usr/share/bash-completion/completions/llmd && complete -p llmd'"
    )


def test_a_wrong_configuration_is_refused_and_the_old_one_stays(installed: Machine) -> None:
    """The reload fails, the log names file and option, and the old configuration stays."""
    installed.run("printf '[server]\\nmax_streams = 0\\n' > /etc/llmd/conf.d/bad.toml")
    installed.run("systemctl reload llmd", status=1)
    assert "/etc/llmd/conf.d/bad.toml: server.max_streams" in installed.journal("-o cat -n 20")
    assert installed.is_known(installed.admin_key())
    installed.run("rm /etc/llmd/conf.d/bad.toml && systemctl reload llmd")


def test_a_setting_that_only_root_may_read_reaches_the_daemon(installed: Machine) -> None:
    """Settings in the credentials folder reach the daemon through systemd."""
    installed.run(
        'umask 077; printf \'[server]\\nlisten = ["0.0.0.0:5000", "0.0.0.0:5001"]\\n\''
        " > /etc/llmd/credentials/secret.toml; systemctl restart llmd"
    )
    installed.from_lan(f"curl -sSf http://{installed.lan}:5001/livez")
    installed.run("rm /etc/llmd/credentials/secret.toml; systemctl restart llmd")
    installed.from_lan(f"curl -sSf http://{installed.lan}:5001/livez", status=7)


def test_nginx_in_front_of_llmd_adds_tls_and_streams(installed: Machine) -> None:
    """The documented configuration of nginx works unchanged."""
    site = "/etc/nginx/sites-available/llmd"
    certificate, key = (
        rf"$(sed -n 's/^ *{name} \(.*\);/\1/p' {site})"
        for name in ("ssl_certificate", "ssl_certificate_key")
    )
    installed.run(
        f"zcat -f /usr/share/doc/llmd/nginx.conf* > {site};"
        " rm -f /etc/nginx/sites-enabled/*;"
        " ln -s ../sites-available/llmd /etc/nginx/sites-enabled/llmd;"
        f" mkdir -p $(dirname {certificate}) $(dirname {key});"
        " openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=llmd -days 2"
        f" -out {certificate} -keyout {key} 2>/dev/null;"
        " nginx -t && systemctl restart nginx"
    )
    lines = installed.from_lan(
        f"curl -sSkN -m 60 -H 'Authorization: Bearer {installed.admin_key()}'"
        f' -d \'{{"prompt": "Hi", "stream": true, "max_tokens": 8}}\''
        f" https://{installed.lan}/answer"
    ).splitlines()
    assert sum(line.startswith("data:") for line in lines) > 2


def test_the_socket_unit_holds_the_port_while_llmd_restarts(installed: Machine) -> None:
    """The socket is disabled by default; with it, a request waits while llmd starts."""
    assert installed.run("systemctl is-enabled llmd.socket", status=1).strip() == "disabled"
    installed.run("systemctl stop llmd && systemctl start llmd.socket")
    assert installed.is_known(installed.admin_key())
    assert "llmd.socket" in installed.run("systemctl show -P TriggeredBy llmd")
    installed.run("systemctl enable llmd.socket && apt-get install --reinstall /opt/debs/llmd.deb")
    assert "llmd.socket" in installed.run("systemctl list-units --state=active llmd.socket")
    assert installed.is_known(installed.admin_key())
    assert "listening on http://[::]:5000" in installed.journal("-o cat -n 20")
    installed.run("systemctl disable --now llmd.socket && systemctl restart llmd")
