/* cotter: THE command table. */
#include "common/err.h"
#include "common/harden.h"
#include "common/limits.h"
#include "common/secret.h"
#include "tools/cli.h"
#include "tools/credential.h"
#include "tools/terminal.h"

#include "build-config.h"

#include <errno.h>
#include <jansson.h>
#include <string.h>
#include <unistd.h>

/*
 * Two programs have this table. cotter asks the broker, starts as fast as its few libraries allow, and becomes cotter-local for the
 * commands that work by themselves: with hardware, sealed files, archives, policies.
 */
#ifdef COTTER_LOCAL
#define LOCAL(run) run
#else
#define LOCAL(run) NULL
#endif

static const struct command commands[] = {
	{"init", "--provider NAME=pkcs11:...|tpm:... [--recovery age1...] [options]",
	 "A first set-up: makes a sealing key in each provider, the configuration and the store's own sealed key.\n\n"
	 "  --provider NAME=URI       pkcs11:token=T?module-path=/abs/lib.so&pin-source=file:/path  (RFC 7512; or module-name=N;\n"
	 "                            pin-source=credential:NAME for systemd; none: cotter unlock asks)\n"
	 "                            tpm:device:/dev/tpmrm0, tpm:tabrmd, tpm:swtpm:port=2321\n"
	 "  --recovery age1...        a recipient whose key is kept offline (age-keygen); may repeat\n"
	 "  --pcrs sha256:0,2,7       TPM keys open only with these PCRs as they are now\n"
	 "  --environment NAME=V=X    a variable that the provider's module needs; may repeat\n"
	 "  --writable NAME=/path     a directory that the module writes (--readable: only reads); may repeat\n"
	 "  --operator UID            who administers (default: you); may repeat\n"
	 "  --unseal 'cache 5m'       or each-use\n"
	 "  --dir /etc/cotter, --state-dir /var/lib/cotter, --socket /run/cotter/cotter.sock\n",
	 LOCAL(cmd_init), false},
	{"key", "make PROVIDER --label L [--sign [--type T]] [--pcrs ...] | list [PROVIDER] | add|rotate|show|certificate|remove KEY",
	 "make: a key in the hardware, probed for what it can do. list: what is there. Both need no broker.\n"
	 "add: a key that jobs may use by the name KEY, where a policy allows 'sign' or 'decrypt': made anew, or --ref names one that is there.\n"
	 "rotate: its next version. show: its public part. certificate: what jobs find beside it. remove: the name (the hardware keeps the key).\n\n"
	 "  --type T                  ecdsa-p256 (default), ecdsa-p384, rsa-2048, rsa-3072, rsa-4096, ed25519\n"
	 "  --provider P              where there are several\n"
	 "  --ref REF                 a PKCS#11 URI, a TPM key file, handle:0x81...: as 'cotter key list' shows it\n"
	 "  --certificate FILE        PEM: the key's own first, then its chain\n"
	 "  --pem                     show: the public key\n"
	 "  --config FILE, --json\n",
	 LOCAL(cmd_key), false},
	{"seal", "[-r RECIPIENT]... [-o OUT] [-a] [FILE]",
	 "Seals a file (or standard input) as an age file. Needs public recipients only: no broker, no hardware.\n\n"
	 "  -r, --recipient R         age1tag1... or age1...; may repeat (default: the configuration's seal)\n"
	 "  -R, --recipients-file F   one a line\n"
	 "  -p, --path PATH           bind it to this secret, [--version N] and this version\n"
	 "  -a, --armor               text\n"
	 "  -o, --output OUT\n"
	 "  --config FILE\n",
	 LOCAL(cmd_seal), false},
	{"open", "[-i IDENTITY-FILE | --passphrase-file F] [-o OUT] [FILE]",
	 "Opens an age file with the configuration's hardware, a recovery key or a passphrase. Needs no broker.\n"
	 "Nothing is written before the whole file was verified (do not change it meanwhile).\n\n"
	 "  -i, --identity F          AGE-SECRET-KEY-1... lines\n"
	 "  --passphrase-file F       - is standard input\n"
	 "  -p, --path PATH           refuse a file that is not bound to this secret\n"
	 "  -o, --output OUT\n"
	 "  --config FILE\n",
	 LOCAL(cmd_open), false},
	{"put", "PATH [--field F] [--data FILE] [--sealed FILE] [--cas N]",
	 "Stores a new version of a secret. The value is read from standard input.\n\n"
	 "  --field F                 its name (default: value)\n"
	 "  --data FILE               a JSON object with all fields; - is standard input\n"
	 "  --sealed FILE             an age file sealed elsewhere; taken only after the hardware opened it\n"
	 "  --cas N                   only if N is the current version (0: there is none)\n"
	 "  --keep-newline            of standard input's last line\n"
	 "  --json\n",
	 LOCAL(cmd_put), false},
	{"get", "PATH[#FIELD] [--version N] [--json]", "Prints a secret: the bytes alone into a pipe, a line on a terminal.\n", cmd_get, false},
	{"list", "[FOLDER] [--json]", "Lists secrets and folders below FOLDER.\n", cmd_list, false},
	{"rm", "PATH [--all]", "Deletes the current version; --all removes the secret with every version.\n", cmd_rm, false},
	{"mask", "[--values-file F] [--secret PATH[#FIELD]]... [--mask TEXT] [options] < log",
	 "Copies standard input to standard output and hides secrets in it, in every disguise that 'cotter run' knows: escapes, base64,\n"
	 "hex, lines, leaves of JSON. What may be the beginning of a secret is kept back until it is decided, nothing else.\n\n"
	 "  --values-file F           a JSON array: strings, or objects with name and value (or base64); - is no file here\n"
	 "  --secret PATH[#FIELD]     a secret of the broker's; may repeat\n"
	 "  --mask TEXT               in place of ***(name)*** and ***\n"
	 "  --min-length N            values with fewer bytes are not hidden (default: 1)\n"
	 "  --token-prefix P          hide what follows it, as after glpat- and ghp_; may repeat\n"
	 "  --values-only             not also passwords in URLs and tokens with a known prefix\n",
	 cmd_mask, false},
	{"scan", "[PATH... | - | --git[=REPO] | --staged[=REPO]] [options]",
	 "Looks for secrets where they do not belong: those of the store (exactly, by fingerprints: nothing of them is told to this program),\n"
	 "and by rules the formats of tokens and keys of others. Exit status 1: something was found; 7: not all could be looked at.\n\n"
	 "  PATH...                   files and trees, archives too (default: .); - is standard input\n"
	 "  --git[=REPO]              every object of a repository, once\n"
	 "  --staged[=REPO]           what is staged: for a pre-commit hook\n"
	 "  --job[=ID]                look for exactly the secrets that this job received, in every disguise (default: this token's job)\n"
	 "  --values-file F           look for these: a JSON array, as with 'cotter mask'\n"
	 "  --index F                 fingerprints from a file; --write-index F makes it (operators)\n"
	 "  --no-store, --no-rules, --no-archives\n"
	 "  --baseline F              findings that are not told again; --write-baseline F makes it\n"
	 "  --format text|json|sarif, --output F, --threads N\n"
	 "A line with cotter:allow in it is passed over by the rules, never for secrets of the store.\n",
	 LOCAL(cmd_scan), false},
	{"history", "PATH [--json]", "The versions of a secret: when, by whom, by which job; which are deleted.\n", cmd_history, false},
	{"rollback", "PATH --to N [--json]", "Makes what version N was the newest version. Nothing is lost: it is a version of its own.\n", cmd_rollback, false},
	{"reseal", "[--json]",
	 "Seals everything anew for the recipients that seal.recipients names now: after a new TPM, a lost token, another recovery key\n"
	 "(operators). First change the configuration and restart cotterd; keep one provider that opens what is there. It can be\n"
	 "interrupted, and called again.\n",
	 cmd_reseal, false},
	{"rotate", "PATH [--program /path] [--config FILE] [--json]",
	 "A new value by the program that the configuration names for PATH (operators). The program is called as PROGRAM VERB PATH, with\n"
	 "{\"path\", \"current\", \"pending\"} on standard input:\n\n"
	 "  create                    prints the new value, a JSON object; changes nothing\n"
	 "  apply                     makes the pending value hold; may be called again\n"
	 "  check                     fails unless the pending value holds\n"
	 "  undo                      makes the current value hold as before\n\n"
	 "If a step fails, all is undone. The version before stays readable for the grace time.\n",
	 LOCAL(cmd_rotate), false},
	{"export", "DIR [FOLDER] --key KEY [--json]",
	 "Writes the current version of every secret (or of those below FOLDER) into DIR, sealed as it is, and a list of them, signed by\n"
	 "KEY in the hardware (operators). For an air gap, or for review in git.\n",
	 LOCAL(cmd_export), false},
	{"import", "DIR --trust KEY.pem [--json]",
	 "Takes from DIR what its list names, if KEY signed it and it opens here; only what is newer than what is here (operators).\n"
	 "KEY.pem is what 'cotter key show KEY --pem' printed where it was exported.\n",
	 LOCAL(cmd_import), false},
	{"token", "make --policy P... | narrow ... | show | why PATH | revoke ACCESSOR|--job ID|--role R|--all  [options]",
	 "make: a capability token (operators). narrow: cuts one down, offline. show: explains one in words. why: what lets it read PATH,\n"
	 "or what refuses (operators). revoke: at once (operators). narrow, show and why read the token from standard input or COTTER_TOKEN.\n\n"
	 "  make    --policy P (repeats), --ttl 1h, --max-ttl 8h, --uses N, --uid U, --job ID, --meta name=value,\n"
	 "          --wrap 5m (a token that is unwrapped once, with 'cotter login --unwrap'), -c CAVEAT\n"
	 "  narrow  --path release/npm-token or release/ (all below), --op get[,list], --uses N, --for 10m, -c CAVEAT\n"
	 "  why     --op get, --uid U, --gid G, --cgroup ID or --pid PID: who would ask (default: whom the token is for)\n"
	 "  revoke  ACCESSOR and all made from it; --lineage: from its first ancestor on; --job ID; --role NAME; --all: everything\n"
	 "  --json\n\n"
	 "caveats, each only narrows:\n"
	 "  op = get                  op in get,create,update,delete,list,sign,decrypt\n"
	 "  path = release/npm-token  path under release/\n"
	 "  time < 2026-11-24T12:00:00Z\n"
	 "  uses <= 1\n"
	 "  uid = 1000                gid = 1000\n"
	 "  job = 16 hex digits       cgroup = its id\n",
	 LOCAL(cmd_token), false},
	{"job", "start --leader PID --policy P... [--ttl 1h] [--name N] [--uid U] | end [JOB] | list",
	 "Tokens that live as long as a job (operators). start prints the token: it works for the leader's uid in the leader's cgroup, and\n"
	 "ends with the leader, with the cgroup's last process, with 'end', or at its --ttl. end without a name ends the job of COTTER_TOKEN.\n\n"
	 "  --uses N, --json\n",
	 cmd_job, false},
	{"login", "--role NAME [--jwt-file F] [--leader PID] | --unwrap",
	 "Prints a token for who this is: by the kernel's word (uid, gid, cgroup, unit), or by a CI ID token from a file (-: standard input),\n"
	 "or for a wrapping token from standard input. It is bound to this uid and, where there is one, to this cgroup or the leader's.\n\n"
	 "  --leader PID              the token ends with this process\n"
	 "  --ttl 5m                  shorter than the role gives\n"
	 "  --name N, --json\n",
	 cmd_login, false},
	{"run", "[--policy P... | --role R [--jwt-file F]] [--env NAME=PATH[#FIELD]]... [options] -- COMMAND [ARG]...",
	 "Runs a command as a job, with secrets in its environment or in memory, and hides them in what it prints. In a cgroup of its own where\n"
	 "it may make one, and in a Landlock domain: no sibling reads its memory. Signals, stops, the exit status and the terminal go through.\n\n"
	 "  -e, --env NAME=PATH[#FIELD]   a variable; may repeat, as the next three\n"
	 "  --file NAME=PATH[#FIELD]      a file in memory; its path is in NAME\n"
	 "  --fd N|NAME=PATH[#FIELD]      an inherited descriptor, number N, or its number in NAME\n"
	 "  --template FILE:NAME          FILE with its {{secret:PATH#FIELD}} filled in, as --file; or FILE:/path on a memory file system\n"
	 "  --stdin PATH[#FIELD]          standard input\n"
	 "  --project[=FILE]              the same from a file (default: ./cotter.yaml)\n"
	 "  --refresh 5m                  look for new values, put them in place, and send --refresh-signal (default: HUP)\n"
	 "  --mask TEXT                   in place of ***(name)***; --mask-min N: shorter values are not hidden (default: 4)\n"
	 "  --no-mask, --no-pty           the output goes straight to where it goes; pipes even where there is a terminal\n"
	 "  --policy P                    registers the job with these policies (operators); may repeat\n"
	 "  --role R, --jwt-file F        registers the job by what this process is, as 'cotter login' does\n"
	 "  --give-token                  the command gets the token, too, as COTTER_TOKEN\n"
	 "  --keys                        its keys as a PKCS#11 token and an ssh-agent, as 'cotter agent' does\n"
	 "  --user U                      becomes this user first (root only)\n"
	 "  --ttl 1h, --name N            as with 'cotter job start'\n",
	 cmd_run, true},
	{"agent", "[--leader PID] [--dir DIR] [--foreground]",
	 "Serves the keys that COTTER_TOKEN (or the token on standard input) may use, on two sockets of this job alone: as a PKCS#11 token for\n"
	 "whatever loads p11-kit-client.so, and as an ssh-agent. Prints what a shell is to evaluate: eval \"$(cotter agent --leader $$)\".\n"
	 "No PIN. Only processes of this uid in this cgroup are answered; the broker checks the token at each signature.\n\n"
	 "  --leader PID              ends with this process\n"
	 "  --dir DIR                 of the sockets (default: a new one, below XDG_RUNTIME_DIR or /tmp)\n"
	 "  --foreground              does not go into the background\n",
	 LOCAL(cmd_agent), false},
	{"credential", "git|docker|cargo|aws|kubectl|terraform|podman|pip|npm [--path PATH [--host HOST]] [--prefix P] [WORD]...",
	 "Speaks the protocol in which a tool asks a helper for a login; see cotter's doc/helpers.md for what to write into which tool's\n"
	 "configuration. Under the names git-credential-cotter, docker-credential-cotter, cargo-credential-cotter, terraform-credentials-cotter\n"
	 "and keyring (pip) it is started by the tool itself. A tool that asks for a host gets the secret KIND/HOST, in small letters, with a\n"
	 "port behind a '+': git/git.example.org, docker/registry.example.org+5000. Nothing goes to another machine but by https.\n\n"
	 "  --path PATH               this secret instead\n"
	 "  --host HOST               where the tool asks for a host: the one that gets the secret of --path\n"
	 "  --prefix P                instead of KIND\n"
	 "  --state-dir DIR           podman: where references are kept (default: cotter/podman below XDG_STATE_HOME)\n\n"
	 "fields of the secret:\n"
	 "  git, pip                  username (optional), and password, token or value\n"
	 "  docker                    username and password, token or value; without username: token, an identity token\n"
	 "  cargo, terraform, npm     token or value\n"
	 "  aws                       access_key_id, secret_access_key, session_token, expiration\n"
	 "  kubectl                   token, or client_certificate and client_key; expiration\n",
	 cmd_credential, false},
	{"approve", "[[--refuse] JOB KEY]",
	 "Which jobs wait for the use of a key that wants approvals (the configuration's keys), and an operator's word on it: for this job\n"
	 "and this key, until the job ends. It is given by the key's approvers, but not by an operator as whom a job ran (root may). One refusal\n"
	 "is enough, until the same operator approves.\n\n"
	 "  --refuse                  the job's requests end, and it does not get the key\n"
	 "  --json\n",
	 cmd_approve, false},
	{"policy", "test --role R [--claims FILE] [--op OP] [PATH]... | lint  [--config FILE]",
	 "test: what an identity would get, from files alone; no broker. Exit status 3 when a PATH is denied, or the role is.\n"
	 "lint: rules that let in more than was meant; exit status 1 when there are any.\n\n"
	 "  --claims FILE             the claims of an ID token, as JSON (nothing is verified, times are not looked at)\n"
	 "  --uid, --gid, --cgroup    who asks, for a role that goes by the kernel's word\n"
	 "  --policy P --meta n=v     instead of a role\n"
	 "  --op                      read (default), create, update, delete, list, sign, decrypt\n"
	 "  --json\n",
	 LOCAL(cmd_policy), false},
	{"status", "[--json]", "What the broker is doing (operators). Exit status 5 while it is sealed.\n", cmd_status, false},
	{"top", "[--interval SECONDS] [--once] [--json]",
	 "Requests, hardware and jobs, and what each job holds, on the whole terminal, again and again (operators). q ends it.\n\n"
	 "  --interval SECONDS        between two looks (default: 2)\n"
	 "  --once                    as a table, after two looks; also where standard output is no terminal\n"
	 "  --json                    the same as one JSON object\n",
	 cmd_top, false},
	{"unlock", "PROVIDER [--again]",
	 "Gives a provider its PIN, asked on the terminal or read from standard input. It is offered to the token once.\n"
	 "--again: look at the configured PIN source once more, after the PIN in it was corrected.\n",
	 cmd_unlock, false},
	{"audit", "[--last N] [--file audit.log] [--json]", "Shows the audit log's last records, checks their numbers, and prints the tree's root: compare it with one that you noted\n"
	 "elsewhere (cotter status shows it too) to know that no record was changed or cut off.\n", LOCAL(cmd_audit), false},
	{"doctor", "[--config FILE] [--json]", "Says what is wrong with the token, the PIN, the TPM, the socket, and what to do.\n", LOCAL(cmd_doctor), false},
};

#define N_COMMANDS (sizeof(commands) / sizeof(commands[0]))

static void print_usage(FILE *f)
{
	fputs("usage: cotter COMMAND ...\n\n", f);
	for (size_t i = 0; i < N_COMMANDS; i++)
		fprintf(f, "  cotter %-7s %s\n", commands[i].name, commands[i].usage);
	fputs("\n'cotter COMMAND --help' says more. Environment: COTTER_SOCKET, COTTER_OPERATOR_SOCKET, COTTER_CONFIG, COTTER_TOKEN.\n"
	      "Exit status: 0 done, 1 failed, 2 usage, 3 denied, 4 not found, 5 hardware or PIN needed, 6 no broker.\n", f);
}

static const struct command *find(const char *name)
{
	for (size_t i = 0; i < N_COMMANDS; i++)
		if (strcmp(commands[i].name, name) == 0)
			return &commands[i];
	return NULL;
}

static bool wants_help(int argc, char **argv)
{
	for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++)
		if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0)
			return true;
	return false;
}

#define STATUS_NOT_FOUND 127 /* as of a shell: no command ends so by itself */

/* Beside this program, as in a build directory; as far from it as an installation has it, wherever that was moved to; where it is
 * installed. */
static int become_local(char **argv)
{
	static const char *const places[] = {"/cotter-local", "/../libexec/cotter/cotter-local"};
	char path[LIMIT_FILE_PATH_LEN];
	ssize_t n = readlink("/proc/self/exe", path, sizeof(path) - 64);
	int why = ENOENT;

	while (n > 0 && path[n - 1] != '/')
		n--;
	for (size_t i = 0; n > 0 && i < sizeof(places) / sizeof(places[0]); i++) {
		snprintf(path + n - 1, sizeof(path) - (size_t)n, "%s", places[i]);
		execv(path, argv);
		why = why == ENOENT ? errno : why;
	}
	execv(COTTER_LOCAL_PATH, argv);
	why = why == ENOENT ? errno : why;
	fprintf(stderr, "cotter: this command needs cotter-local, which is not beside cotter nor at %s, or cannot be started: %s\n",
		COTTER_LOCAL_PATH, strerror(why));
	return STATUS_NOT_FOUND;
}

int main(int argc, char **argv)
{
	struct harden_saved saved = {0};
	struct harden harden = {.keep_fd_below = 3, .arena_size = LIMIT_ARENA_TOOL, .saved = &saved};
	const bool helper = argc > 0 && credential_is_program(argv[0]);
	const int skip = helper ? 0 : 1; /* a tool's helper has its command in its name */
	const struct command *command = helper ? find("credential") : argc > 1 ? find(argv[1]) : NULL;
	struct cli cli = {0};
	struct err err = {0};
	int r;

	if (!helper && argc > 1 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "help") == 0 || strcmp(argv[1], "-h") == 0)) {
		print_usage(stdout);
		return 0;
	}
	if (argc > 1 && strcmp(argv[1], "--version") == 0) {
		puts("cotter " COTTER_VERSION);
		return 0;
	}
	if (!command) {
		if (argc > 1)
			fprintf(stderr, "cotter: there is no command '%.40s'\n", argv[1]);
		print_usage(stderr);
		return 2;
	}
	if (wants_help(argc - skip, argv + skip)) {
		printf("usage: cotter %s %s\n\n%s", command->name, command->usage, command->help);
		return 0;
	}
	if (!command->run)
		return become_local(argv);
	cli.command = command->name;
	cli.saved = &saved;
	/* only run's command inherits descriptors: a job may pass pipes to it */
	if (command->becomes_job)
		harden.keep_fd_below = 0;
	r = harden_start(&harden, &err);
	json_set_alloc_funcs(secret_alloc, secret_free);
	if (r == 0)
		r = command->run(&cli, argc - skip, argv + skip, &err);
	if (fflush(stdout) != 0 && r == 0)
		r = err_set(&err, ERR_FAILED, "cannot write to standard output");
	if (r < 0)
		fprintf(stderr, "cotter: %s\n", err.msg);
	secret_arena_done();
	return r == 0 && cli.end.set ? terminal_end_like(cli.end.status) : err_exit_status(r);
}
