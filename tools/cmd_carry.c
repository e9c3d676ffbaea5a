/* cotter export, cotter import: sealed secrets as a tree of age files with a signed list, and back. */
#include "common/bind.h"
#include "common/buf.h"
#include "common/cleanup.h"
#include "common/err.h"
#include "tools/cli.h"
#include "tools/client.h"
#include "tools/manifest.h"
#include "tools/names.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define SECRETS "secrets"

/* ---- export ------------------------------------------------------------------------------------------------------ */

/* A folder that is called as a file could be has a '=' behind its name, which no secret's name has. */
static void append_folders(struct writer *w, const char *path)
{
	const char *slash;

	for (; (slash = strchr(path, '/')); path = slash + 1) {
		size_t n = (size_t)(slash - path);

		writer_bytes(w, path, n);
		writer_str(w, n > 4 && memcmp(slash - 4, ".age", 4) == 0 ? "=/" : "/");
	}
	writer_str(w, path);
}

/* dir/secrets/a/b.age for a/b. make: its folders, too. */
static int file_name(const char *dir, const char *path, bool make, char *ret, size_t size, struct err *err)
{
	struct writer w = writer_init(ret, size - 1);

	writer_str(&w, dir);
	writer_str(&w, "/" SECRETS "/");
	append_folders(&w, path);
	writer_str(&w, ".age");
	if (w.failed)
		return err_set(err, ERR_LIMIT, "%.200s: the file's path is too long", path);
	ret[w.len] = '\0';
	for (char *slash = ret + strlen(dir) + 1; make && (slash = strchr(slash, '/')); slash++) {
		*slash = '\0';
		if (mkdir(ret, 0700) < 0 && errno != EEXIST)
			return err_errno(err, errno, "%.300s", ret);
		*slash = '/';
	}
	return 0;
}

static int write_file(const char *path, const void *data, size_t len, struct err *err)
{
	struct cli_output o;
	int r = cli_output_begin(path, &o, err);

	return r < 0 ? r : cli_output_end(&o, cli_write_all(o.fd, data, len, err), err);
}

/* 1: it is there; 0: its current version is deleted or destroyed. */
static int export_one(const char *dir, const char *path, struct manifest_entry *ret, struct err *err)
{
	CLEANUP(client_reply_done) struct client_reply reply = {0};
	CLEANUP(cleanup_free) uint8_t *sealed = malloc(LIMIT_SEALED_LEN);
	char url[LIMIT_PATH_LEN + 64], file[LIMIT_FILE_PATH_LEN];
	const json_t *text;
	size_t len = 0;
	int r;

	snprintf(url, sizeof(url), "/v1/cotter/export/%s", path);
	r = client_call(CLIENT_OPERATOR, "GET", url, NULL, &reply, err);
	if (r == -ERR_NOT_FOUND)
		return 0;
	if (r < 0)
		return err_wrap(err, "%s", path);
	text = json_object_get(client_data(&reply), "sealed");
	ret->version = (uint64_t)json_integer_value(json_object_get(client_data(&reply), "version"));
	if (!sealed || !json_is_string(text) ||
	    sodium_base642bin(sealed, LIMIT_SEALED_LEN, json_string_value(text), json_string_length(text), NULL, &len, NULL, sodium_base64_VARIANT_ORIGINAL) != 0)
		return err_set(err, ERR_FAILED, "%s: the broker's answer is not what it should be", path);
	snprintf(ret->path, sizeof(ret->path), "%s", path);
	crypto_hash_sha256(ret->sha256, sealed, len);
	r = file_name(dir, path, true, file, sizeof(file), err);
	if (r == 0)
		r = write_file(file, sealed, len, err);
	return r < 0 ? r : 1;
}

static int sign(const char *dir, const char *key, const char *text, size_t len, struct err *err)
{
	CLEANUP(client_reply_done) struct client_reply reply = {0};
	CLEANUP(client_json_free) json_t *body = NULL;
	char url[LIMIT_PATH_LEN + 64], input[64], file[LIMIT_FILE_PATH_LEN];
	uint8_t digest[32], signature[LIMIT_MANIFEST_SIGNATURE];
	const char *signed_text, *colon;
	size_t n = 0;
	int r;

	crypto_hash_sha256(digest, (const uint8_t *)text, len);
	sodium_bin2base64(input, sizeof(input), digest, sizeof(digest), sodium_base64_VARIANT_ORIGINAL);
	body = json_pack("{s:s, s:b, s:s, s:s}", "input", input, "prehashed", 1, "hash_algorithm", "sha2-256", "signature_algorithm", "pkcs1v15");
	snprintf(url, sizeof(url), "/v1/transit/sign/%s", key);
	r = client_call(CLIENT_OPERATOR, "POST", url, body, &reply, err);
	if (r < 0)
		return err_wrap(err, "signing with %.100s", key);
	signed_text = json_string_value(json_object_get(client_data(&reply), "signature"));
	colon = signed_text ? strrchr(signed_text, ':') : NULL;
	if (!colon || sodium_base642bin(signature, sizeof(signature), colon + 1, strlen(colon + 1), NULL, &n, NULL, sodium_base64_VARIANT_ORIGINAL) != 0)
		return err_set(err, ERR_FAILED, "the broker's answer is not what it should be");
	snprintf(file, sizeof(file), "%s/" MANIFEST_SIGNATURE_NAME, dir);
	return write_file(file, signature, n, err);
}

/* Before anything is written. */
static int check_key(const char *key, struct err *err)
{
	CLEANUP(client_reply_done) struct client_reply reply = {0};
	char url[LIMIT_PATH_LEN + 64];
	int r;

	snprintf(url, sizeof(url), "/v1/transit/keys/%s", key);
	r = client_call(CLIENT_OPERATOR, "GET", url, NULL, &reply, err);
	return r == -ERR_NOT_FOUND ? err_set(err, ERR_NOT_FOUND, "there is no key %.100s: 'cotter key add %.100s' makes one", key, key) : r;
}

static int export_all(const char *dir, const struct names *secrets, char *text, size_t *ret_len, size_t *ret_n, struct err *err)
{
	struct cli_progress progress = {.what = "exported"};
	struct manifest_entry e;
	size_t len = sizeof(MANIFEST_FIRST_LINE) - 1; /* lines, no text that a NUL ends */
	int r = 0;

	for (size_t i = 0; i < len; i++)
		text[i] = MANIFEST_FIRST_LINE[i];
	for (size_t i = 0; r >= 0 && i < secrets->n; i++) {
		r = export_one(dir, secrets->list[i], &e, err);
		if (r != 1)
			continue;
		len += manifest_line(&e, text + len);
		(*ret_n)++;
		cli_progress(&progress, 1);
	}
	cli_progress_end(&progress);
	*ret_len = len;
	return r < 0 ? r : 0;
}

int cmd_export(struct cli *cli, int argc, char **argv, struct err *err)
{
	static const struct option options[] = {{"key", required_argument, NULL, 'k'}, {"json", no_argument, NULL, 'j'}, {0}};
	CLEANUP(names_done) struct names secrets = {0};
	CLEANUP(cleanup_free) char *text = NULL;
	const char *key = NULL, *dir, *folder = "";
	char file[LIMIT_FILE_PATH_LEN];
	size_t len = 0, n = 0;
	int opt, r;

	while ((opt = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (opt == 'k')
			key = optarg;
		else if (opt == 'j')
			cli->json = true;
		else
			return cli_usage(cli, err, "unknown option");
	}
	if (argc - optind < 1 || argc - optind > 2 || !key || !path_valid(key))
		return cli_usage(cli, err, "name a directory, and the key that signs what is in it: DIR --key KEY");
	dir = argv[optind];
	if (argc - optind == 2)
		folder = argv[optind + 1];
	if (*folder && !path_valid(folder))
		return cli_usage(cli, err, "'%.100s' is not a folder", folder);
	if ((size_t)snprintf(file, sizeof(file), "%s/" MANIFEST_NAME, dir) >= sizeof(file))
		return cli_usage(cli, err, "the directory's path is too long");
	r = check_key(key, err);
	if (r == 0)
		r = names_find_secrets(folder, &secrets, err);
	if (r == 0 && mkdir(dir, 0700) < 0 && errno != EEXIST)
		r = err_errno(err, errno, "%.300s", dir);
	if (r == 0) {
		text = malloc(secrets.n * MANIFEST_LINE_LEN + sizeof(MANIFEST_FIRST_LINE));
		r = text ? export_all(dir, &secrets, text, &len, &n, err) : err_set(err, ERR_FAILED, "out of memory");
	}
	/* the list last: it names only files that are there */
	if (r == 0)
		r = sign(dir, key, text, len, err);
	if (r == 0)
		r = write_file(file, text, len, err);
	if (r < 0)
		return r;
	if (cli->json)
		printf("{\"exported\":%zu}\n", n);
	else
		printf("%zu secrets, sealed as they are, in %s; its list is signed by %s\n", n, dir, key);
	return 0;
}

/* ---- import ------------------------------------------------------------------------------------------------------ */

static int read_file(const char *path, size_t max, uint8_t **ret, size_t *ret_len, struct err *err)
{
	CLEANUP(cleanup_close) int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	CLEANUP(cleanup_free) uint8_t *data = NULL;
	struct stat st;
	size_t len = 0;
	ssize_t n = 0;

	if (fd < 0 || fstat(fd, &st) < 0)
		return err_errno(err, errno, "%.300s", path);
	if (!S_ISREG(st.st_mode) || st.st_size < 0 || (size_t)st.st_size > max)
		return err_set(err, ERR_INPUT, "%.300s: not a file, or larger than %zu bytes", path, max);
	data = malloc((size_t)st.st_size + 1);
	while (data && len <= (size_t)st.st_size && (n = read(fd, data + len, (size_t)st.st_size + 1 - len)) > 0)
		len += (size_t)n;
	if (!data || n < 0 || len > (size_t)st.st_size)
		return err_set(err, ERR_FAILED, "%.300s: it cannot be read, or changes meanwhile", path);
	*ret = steal_ptr(&data);
	*ret_len = len;
	return 0;
}

struct import {
	const char *dir;
	struct cli_progress progress;
	unsigned long long taken, same, older, failed;
	struct err *err;
};

/* The file that a line is about, if it is what was signed. */
static int read_entry(const struct import *in, const struct manifest_entry *e, uint8_t **ret, size_t *ret_len, struct err *err)
{
	char file[LIMIT_FILE_PATH_LEN];
	uint8_t hash[32];
	int r = file_name(in->dir, e->path, false, file, sizeof(file), err);

	if (r == 0)
		r = read_file(file, LIMIT_SEALED_LEN, ret, ret_len, err);
	if (r < 0)
		return r;
	crypto_hash_sha256(hash, *ret, *ret_len);
	return memcmp(hash, e->sha256, sizeof(hash)) == 0 ? 0 : err_set(err, ERR_TAMPERED, "%.300s is not the file that was signed", file);
}

static int check_entry(void *ctx, const struct manifest_entry *e)
{
	struct import *in = ctx;
	CLEANUP(cleanup_free) uint8_t *sealed = NULL;
	size_t len = 0;

	return read_entry(in, e, &sealed, &len, in->err);
}

static int import_entry(void *ctx, const struct manifest_entry *e)
{
	struct import *in = ctx;
	CLEANUP(client_reply_done) struct client_reply reply = {0};
	CLEANUP(client_json_free) json_t *body = json_object();
	CLEANUP(cleanup_free) uint8_t *sealed = NULL;
	CLEANUP(cleanup_free) char *text = NULL;
	char url[LIMIT_PATH_LEN + 64];
	const char *state;
	size_t len = 0, cap;
	int r = read_entry(in, e, &sealed, &len, in->err);

	if (r < 0)
		return r;
	cap = sodium_base64_ENCODED_LEN(len, sodium_base64_VARIANT_ORIGINAL);
	text = malloc(cap);
	if (!text)
		return err_set(in->err, ERR_FAILED, "out of memory");
	sodium_bin2base64(text, cap, sealed, len, sodium_base64_VARIANT_ORIGINAL);
	json_object_set_new(body, "sealed", json_string(text));
	json_object_set_new(body, "version", json_integer((json_int_t)e->version));
	snprintf(url, sizeof(url), "/v1/cotter/import/%s", e->path);
	r = client_call(CLIENT_OPERATOR, "POST", url, body, &reply, in->err);
	if (r == -ERR_INPUT || r == -ERR_NO_MATCH || r == -ERR_TAMPERED) { /* a file that does not open here keeps none of the others */
		fprintf(stderr, "%s: not taken: ", e->path);
		cli_print_safe(stderr, in->err->msg);
		fputc('\n', stderr);
		in->failed++;
		return 0;
	}
	if (r < 0)
		return err_wrap(in->err, "%s", e->path);
	state = json_string_value(json_object_get(client_data(&reply), "state"));
	if (state && strcmp(state, "same") != 0)
		fprintf(stderr, "%s: not taken: version %llu %s\n", e->path, (unsigned long long)e->version,
			strcmp(state, "older") == 0 ? "is older than what is here" : "is here already, and is another one");
	in->taken += state == NULL;
	in->same += state && strcmp(state, "same") == 0;
	in->older += state && strcmp(state, "same") != 0;
	cli_progress(&in->progress, 1);
	return 0;
}

int cmd_import(struct cli *cli, int argc, char **argv, struct err *err)
{
	static const struct option options[] = {{"trust", required_argument, NULL, 't'}, {"json", no_argument, NULL, 'j'}, {0}};
	CLEANUP(cleanup_free) uint8_t *text = NULL;
	CLEANUP(cleanup_free) uint8_t *signature = NULL;
	CLEANUP(cleanup_free) uint8_t *pem = NULL;
	struct import in = {.progress = {.what = "imported"}, .err = err};
	char file[LIMIT_FILE_PATH_LEN + 32];
	const char *trust = NULL;
	size_t len = 0, signature_len = 0, pem_len = 0;
	int opt, r;

	while ((opt = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (opt == 't')
			trust = optarg;
		else if (opt == 'j')
			cli->json = true;
		else
			return cli_usage(cli, err, "unknown option");
	}
	if (argc - optind != 1 || !trust || strlen(argv[optind]) >= LIMIT_FILE_PATH_LEN)
		return cli_usage(cli, err, "name a directory, and the public key of whoever signed what is in it: DIR --trust KEY.pem");
	in.dir = argv[optind];
	snprintf(file, sizeof(file), "%s/" MANIFEST_NAME, in.dir);
	r = read_file(file, LIMIT_MANIFEST, &text, &len, err);
	snprintf(file, sizeof(file), "%s/" MANIFEST_SIGNATURE_NAME, in.dir);
	if (r == 0)
		r = read_file(file, LIMIT_MANIFEST_SIGNATURE, &signature, &signature_len, err);
	if (r == 0)
		r = read_file(trust, LIMIT_MANIFEST_SIGNATURE * 16, &pem, &pem_len, err);
	if (r == 0)
		r = manifest_verify((char *)text, len, signature, signature_len, (char *)pem, pem_len, err);
	/* nothing is taken before all is what was signed */
	if (r == 0)
		r = manifest_read((char *)text, len, check_entry, &in, err);
	if (r == 0)
		r = manifest_read((char *)text, len, import_entry, &in, err);
	cli_progress_end(&in.progress);
	if (r < 0)
		return r;
	if (cli->json)
		printf("{\"imported\":%llu,\"same\":%llu,\"older\":%llu,\"failed\":%llu}\n", in.taken, in.same, in.older, in.failed);
	else
		printf("%llu imported, %llu were here already, %llu older ones left out\n", in.taken, in.same, in.older);
	return in.failed ? err_set(err, ERR_FAILED, "%llu could not be opened here: are they sealed to this store's recipients?", in.failed) : 0;
}
