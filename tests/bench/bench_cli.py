"""
A secret by one command, whole processes: cotter get beside /bin/true, and beside what a user would pick instead; a signature by ssh-add -T
in a job beside ssh-agent. What is not installed, or does not work here, is named.
"""
import os
import shutil
import subprocess
import time

from bench import PEERS, VALUE, Bench, interleave, ratio, row, write
from harness import COTTER, PIN, SOFTHSM, Broker, SoftHSM, Swtpm, clean_env, run

SIGNER = "  signer:\n    - path: release/*\n      allow: [sign]\n"
LOOP = ("ssh-add -L | grep ecdsa > {0}; ssh-add -T {0} || exit 1; b=$(date +%s%N); i=0; "
        "while [ $i -lt 10 ]; do ssh-add -T {0} || exit 1; i=$((i+1)); done; e=$(date +%s%N); echo $((e-b))")


def timed(command, env=None, stdin=None, says=VALUE, after=None):
    """Milliseconds of a process that prints the secret. after is not timed."""
    def measure():
        start = time.monotonic()
        p = subprocess.run(command, input=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env or clean_env())
        took = (time.monotonic() - start) * 1000
        if p.returncode or (says and p.stdout.decode().rstrip("\n") != says):
            raise AssertionError(f"{command}: status {p.returncode} {p.stderr.decode(errors='replace')[-200:]}")
        if after:
            after()
        return took
    return measure


def flushed(tpm):
    """There is no resource manager: what a tool leaves in the TPM fills it."""
    return lambda: [run("tpm2_flushcontext", what, env=clean_env(TPM2TOOLS_TCTI=tpm.tcti)) for what in ("-t", "-l", "-s")]


def age(bench):
    key, sealed = os.path.join(bench.dir, "age.key"), os.path.join(bench.dir, "x.age")
    run("age-keygen", "-o", key, check=True)
    run("age", "-r", run("age-keygen", "-y", key, check=True).stdout.decode().strip(), "-o", sealed, stdin=VALUE, check=True)
    return timed(["age", "-d", "-i", key, sealed])


def tpm_unseal(bench):
    tpm = bench.keep(Swtpm(bench.sub("unseal")))
    for command in (["tpm2_createprimary", "-c", "p.ctx"], ["tpm2_create", "-C", "p.ctx", "-i", "-", "-u", "u", "-r", "r"],
                    ["tpm2_load", "-C", "p.ctx", "-u", "u", "-r", "r", "-c", "s.ctx"], ["tpm2_evictcontrol", "-c", "s.ctx", "0x81010001"]):
        tpm.tool(*command, stdin=VALUE[:128], cwd=tpm.dir)
    return timed(["tpm2_unseal", "-c", "0x81010001"], clean_env(TPM2TOOLS_TCTI=tpm.tcti), says=VALUE[:128])  # a TPM seals no more


def systemd_creds(bench):
    tpm, sealed = bench.keep(Swtpm(bench.sub("creds"))), os.path.join(bench.dir, "x.cred")
    device = f"--tpm2-device={tpm.tcti}"
    run("systemd-creds", "encrypt", "--with-key=tpm2", device, "--name=x", "-", sealed, stdin=VALUE, check=True)
    return timed(["systemd-creds", "decrypt", device, "--name=x", sealed, "-"], after=flushed(tpm))


def clevis(bench):
    tpm = bench.keep(Swtpm(bench.sub("clevis")))
    env = clean_env(TPM2TOOLS_TCTI=tpm.tcti)
    sealed = tpm.tool("clevis", "encrypt", "tpm2", "{}", stdin=VALUE).stdout
    return timed(["clevis", "decrypt"], env, sealed, after=flushed(tpm))


def pkcs11_tool(bench):
    hsm = SoftHSM(bench.sub("tool"))
    clear, public, sealed = (os.path.join(bench.dir, f"tool.{x}") for x in ("clear", "pem", "sealed"))
    hsm.tool("--keypairgen", "--key-type", "rsa:2048", "--id", "01")
    hsm.tool("--read-object", "--type", "pubkey", "--id", "01", "-o", public + ".der")
    with open(clear, "w") as f:
        f.write(VALUE)
    run("openssl", "pkeyutl", "-encrypt", "-pubin", "-keyform", "DER", "-inkey", public + ".der", "-in", clear, "-out", sealed, check=True)
    return timed(["pkcs11-tool", "--module", SOFTHSM, "--login", "--pin", PIN, "--decrypt", "--id", "01", "-m", "RSA-PKCS", "--input-file", sealed],
                 hsm.env)


def password_store(bench):
    home = bench.sub("gnupg")
    os.chmod(home, 0o700)
    env = clean_env(GNUPGHOME=home, PASSWORD_STORE_DIR=os.path.join(bench.dir, "store"))
    run("gpg", "--batch", "--passphrase", "", "--quick-gen-key", "bench", "future-default", "default", "never", env=env, check=True)
    run("pass", "init", "bench", env=env, check=True)
    run("pass", "insert", "-m", "x", env=env, stdin=VALUE, check=True)

    class Agent:
        @staticmethod
        def stop():
            run("gpgconf", "--kill", "gpg-agent", env=env)
    bench.keep(Agent)
    return timed(["pass", "show", "x"], env)


PEERS_OF_GET = (("age -d", "age", age), ("tpm2_unseal (swtpm)", "tpm2_unseal", tpm_unseal), ("pkcs11-tool --decrypt (SoftHSM)", "pkcs11-tool", pkcs11_tool),
                ("systemd-creds decrypt (swtpm)", "systemd-creds", systemd_creds), ("pass show (gpg-agent)", "pass", password_store),
                ("clevis decrypt (swtpm)", "clevis", clevis))


def get_broker(bench, name, unseal):
    b = bench.keep(Broker(bench.sub(name), hsm=SoftHSM(bench.sub(f"h{name}")), edit=lambda t: t.replace("unseal: cache 5m", f"unseal: {unseal}")).start())
    b.put("bench/secret", VALUE)
    token = b.token("--policy", "admin", "--ttl", "1h")
    return timed([COTTER, "get", "bench/secret"], {**b.env, "COTTER_TOKEN": token})


def commands(bench):
    candidates = {"/bin/true": timed(["/bin/true"], says=None), "cotter get": get_broker(bench, "warm", "cache 5m"),
                  "cotter get, asking the HSM each time (SoftHSM)": get_broker(bench, "cold", "each-use")}
    missing = []
    for name, program, prepare in PEERS_OF_GET:
        try:
            if not shutil.which(program):
                raise AssertionError("not installed")
            measure = prepare(bench)
            measure()
            candidates[name] = measure
        except AssertionError as e:
            print(f"{name}: {e}")
            missing.append(name)
    return interleave(candidates), missing


def ssh_signatures(bench):
    b = bench.keep(Broker(bench.sub("ssh"), hsm=SoftHSM(bench.sub("hssh")), edit=lambda t: t + SIGNER).start())
    b.cli("key", "add", "release/key", "--type", "ecdsa-p256", check=True)
    key = os.path.join(bench.dir, "id")
    run("ssh-keygen", "-q", "-t", "ecdsa", "-N", "", "-f", key, check=True)
    loop = lambda name: ["sh", "-c", LOOP.format(os.path.join(bench.dir, name))]
    agent = ["ssh-agent", "sh", "-c", f"ssh-add -q {key}; {LOOP.format(os.path.join(bench.dir, 'theirs.pub'))}"]

    def measure(command, env):
        return lambda: float(run(*command, env=env, check=True).stdout.split()[-1]) / 1e7
    return interleave({"ssh-add -T, in a job of cotter's (SoftHSM)": measure([COTTER, "run", "--policy", "signer", "--keys", "--", *loop("ours.pub")], b.env),
                       "ssh-add -T, ssh-agent": measure(agent, clean_env())})


def main():
    with Bench() as bench:
        f, missing = commands(bench)
        signatures = ssh_signatures(bench)
    f = dict(sorted(f.items(), key=lambda x: x[1].median))
    for name, figure in {**f, **signatures}.items():
        print(f"{name:50} {figure.median:8.2f} ms (best {figure.low:.2f})")
    write(PEERS, {"secret": [[name, x.median, x.low] for name, x in f.items()], "sign": [[name, x.median, x.low] for name, x in signatures.items()],
                  "missing": missing})
    get, true = f["cotter get"], f["/bin/true"]
    row("cli-get", "cotter get, whole process", ratio(get, true), 3.0, "lower", f"{get.median:.2f} ms (best {get.low:.2f})",
        f"/bin/true {true.median:.2f} ms (best {true.low:.2f})")
    ours, theirs = signatures.values()
    row("cli-ssh", "a signature and its check by ssh-add -T, whole process", ratio(ours, theirs), 1.2, "lower", f"{ours.median:.2f} ms, key in SoftHSM",
        f"ssh-agent {theirs.median:.2f} ms, key in its memory")


if __name__ == "__main__":
    main()
