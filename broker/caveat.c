#include "broker/caveat.h"

#include "broker/job.h"
#include "broker/policy.h"
#include "broker/store.h"
#include "common/bind.h"
#include "common/err.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

struct value {
	const char *text;
	uint64_t n; /* what its row reads it as: a number, a time in ms, a set of operations */
};

struct row {
	const char *prefix; /* the caveat's text up to its value, spaces and all */
	bool (*parse)(struct value *v);
	int (*holds)(const struct value *v, const struct caveat_context *c, struct err *err);
	const char *sentence; /* with one %s for the value */
};

static int denied(struct err *err, const char *what)
{
	return err_set(err, ERR_DENIED, "caveat: %s", what);
}

/* Decimal without sign or leading zeros, at most max. */
static bool number(struct value *v, uint64_t max)
{
	const char *value = v->text;
	uint64_t n = 0;

	if (!*value || (value[0] == '0' && value[1]))
		return false;
	for (; *value; value++) {
		if (*value < '0' || *value > '9' || n > (UINT64_MAX - 9) / 10)
			return false;
		n = n * 10 + (uint64_t)(*value - '0');
	}
	v->n = n;
	return n <= max;
}

/* "get,list" → bits; 0 when malformed. */
static uint32_t op_set(const char *value)
{
	uint32_t set = 0, op;
	size_t n;

	for (;; value += n + 1) {
		n = strcspn(value, ",");
		op = policy_op(value, n);
		if (!op || (op & POLICY_DENY))
			return 0;
		set |= op;
		if (!value[n])
			return set;
	}
}

static bool op_in_parse(struct value *v)
{
	v->n = op_set(v->text);
	return v->n != 0;
}

static bool op_parse(struct value *v)
{
	return op_in_parse(v) && !strchr(v->text, ',');
}

static int op_holds(const struct value *v, const struct caveat_context *c, struct err *err)
{
	return c->facts->op == 0 || (v->n & c->facts->op) ? 0 : denied(err, "another operation");
}

static bool path_parse(struct value *v)
{
	return path_valid(v->text);
}

static int path_holds(const struct value *v, const struct caveat_context *c, struct err *err)
{
	return !c->facts->path || strcmp(v->text, c->facts->path) == 0 ? 0 : denied(err, "another path");
}

static bool under_parse(struct value *v)
{
	char path[LIMIT_CAVEAT_LEN + 1];
	size_t n = strlen(v->text);

	if (n < 2 || v->text[n - 1] != '/')
		return false;
	memcpy(path, v->text, n - 1);
	path[n - 1] = '\0';
	return path_valid(path);
}

static int under_holds(const struct value *v, const struct caveat_context *c, struct err *err)
{
	size_t n = strlen(v->text);

	if (!c->facts->path)
		return 0;
	/* listing the folder itself is under it, too */
	if (strncmp(c->facts->path, v->text, n) == 0 ||
	    (c->facts->folder && strlen(c->facts->path) == n - 1 && memcmp(c->facts->path, v->text, n - 1) == 0))
		return 0;
	return denied(err, "outside its folder");
}

/* The digits of a time, each where it has to be: strptime takes white space and signs. */
static bool time_digits(const char *value, struct tm *ret)
{
	static const char form[] = "0000-00-00T00:00:00Z";
	int n[6] = {0}, at = 0;

	for (size_t i = 0; i < sizeof(form); i++) {
		if (form[i] == '0' && value[i] >= '0' && value[i] <= '9')
			n[at] = 10 * n[at] + value[i] - '0';
		else if (form[i] == '0' || value[i] != form[i])
			return false;
		else
			at++;
	}
	*ret = (struct tm){.tm_year = n[0] - 1900, .tm_mon = n[1] - 1, .tm_mday = n[2], .tm_hour = n[3], .tm_min = n[4], .tm_sec = n[5]};
	return true;
}

static bool time_parse(struct value *v)
{
	struct tm tm, back;
	time_t t;

	if (!time_digits(v->text, &tm))
		return false;
	back = tm;
	t = timegm(&back);
	/* timegm mends impossible dates; ours must come back as they went in */
	if (t < 0 || back.tm_year != tm.tm_year || back.tm_mon != tm.tm_mon || back.tm_mday != tm.tm_mday || back.tm_hour != tm.tm_hour ||
	    back.tm_min != tm.tm_min || back.tm_sec != tm.tm_sec)
		return false;
	v->n = (uint64_t)t * 1000;
	return true;
}

static int time_holds(const struct value *v, const struct caveat_context *c, struct err *err)
{
	return c->facts->wall_ms < v->n ? 0 : denied(err, "its time is over");
}

static bool id_parse(struct value *v)
{
	return number(v, UINT32_MAX - 1);
}

static bool cgroup_parse(struct value *v)
{
	return number(v, UINT64_MAX) && v->n > 1;
}

static int cgroup_holds(const struct value *v, const struct caveat_context *c, struct err *err)
{
	return v->n == c->facts->cgroup ? 0 : denied(err, "another cgroup");
}

static bool job_parse(struct value *v)
{
	size_t n = strspn(v->text, "0123456789abcdef");

	return n == 2 * JOB_ID_LEN && !v->text[n];
}

static int job_holds(const struct value *v, const struct caveat_context *c, struct err *err)
{
	char id[2 * JOB_ID_LEN + 1];

	if (!c->row->job)
		return denied(err, "the token is of no job");
	job_id_text(c->row->job, id);
	return strcmp(v->text, id) == 0 ? 0 : denied(err, "another job");
}

static int uid_holds(const struct value *v, const struct caveat_context *c, struct err *err)
{
	return v->n == c->facts->uid ? 0 : denied(err, "another uid");
}

static int gid_holds(const struct value *v, const struct caveat_context *c, struct err *err)
{
	return v->n == c->facts->gid ? 0 : denied(err, "another gid");
}

static bool uses_parse(struct value *v)
{
	return number(v, 1000000000);
}

static int uses_holds(const struct value *v, const struct caveat_context *c, struct err *err)
{
	uint8_t name[MACAROON_NAME_LEN];
	uint64_t used;

	if (c->facts->op == 0)
		return 0; /* looking a token up is no use of it */
	macaroon_caveat_name(c->sig, name);
	if (store_use_get(c->store, c->row->id, name, &used, NULL) < 0 || used >= v->n)
		return denied(err, "its uses are used up");
	if (c->count && store_use_put(c->store, c->row->id, name, used + 1, NULL) < 0)
		return denied(err, "its use cannot be counted");
	return 0;
}

static const struct row rows[] = {
	{"op = ", op_parse, op_holds, "only the operation %s"},
	{"op in ", op_in_parse, op_holds, "only the operations %s"},
	{"path = ", path_parse, path_holds, "only the secret %s"},
	{"path under ", under_parse, under_holds, "only secrets under %s"},
	{"time < ", time_parse, time_holds, "only before %s"},
	{"uid = ", id_parse, uid_holds, "only for uid %s"},
	{"gid = ", id_parse, gid_holds, "only for gid %s"},
	{"cgroup = ", cgroup_parse, cgroup_holds, "only in the cgroup with the id %s"},
	{"job = ", job_parse, job_holds, "only for the job %s"},
	{"uses <= ", uses_parse, uses_holds, "at most %s uses from here on"},
};

/* buffer: for v->text. */
static const struct row *find(const char *text, size_t len, char buffer[LIMIT_CAVEAT_LEN + 1], struct value *v)
{
	size_t n;

	if (len > LIMIT_CAVEAT_LEN || memchr(text, 0, len))
		return NULL;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		n = strlen(rows[i].prefix);
		if (len <= n || memcmp(text, rows[i].prefix, n) != 0)
			continue;
		memcpy(buffer, text + n, len - n);
		buffer[len - n] = '\0';
		*v = (struct value){.text = buffer};
		return rows[i].parse(v) ? &rows[i] : NULL;
	}
	return NULL;
}

int caveat_check(const struct macaroon_caveat *caveat, const struct caveat_context *c, struct err *err)
{
	char buffer[LIMIT_CAVEAT_LEN + 1];
	struct value v;
	const struct row *row = find((const char *)caveat->p, caveat->len, buffer, &v);

	return row ? row->holds(&v, c, err) : denied(err, "unknown or malformed");
}

bool caveat_explain(const char *text, size_t len, char *ret, size_t size)
{
	char buffer[LIMIT_CAVEAT_LEN + 1];
	struct value v;
	const struct row *row = find(text, len, buffer, &v);
	const char *at;

	if (!row)
		return false;
	at = strstr(row->sentence, "%s");
	snprintf(ret, size, "%.*s%s%s", (int)(at - row->sentence), row->sentence, v.text, at + 2);
	return true;
}
