/* A presented token against its row, the facts, its caveats and the policies. */
#include "broker/token_key.h"

#include "broker/caveat.h"
#include "broker/config.h"
#include "broker/job.h"
#include "broker/policy.h"
#include "broker/store.h"
#include "common/bind.h"
#include "common/err.h"

#include <sodium.h>
#include <string.h>

static int denied(struct err *err, const char *why)
{
	return err_set(err, ERR_DENIED, "%s", why);
}

static int check_peer(const struct token_row *row, const struct token_facts *facts, struct token_verdict *v, struct err *err)
{
	v->step = "peer";
	if (row->uid != TOKEN_ANY_UID && row->uid != facts->uid)
		return denied(err, "the token belongs to another uid");
	if (row->cgroup && row->cgroup != facts->cgroup)
		return denied(err, "the token belongs to another cgroup");
	v->step = "row";
	if (facts->boot_ms >= row->deadline_ms)
		return denied(err, "the token has expired");
	if (facts->op && row->uses_left == 0)
		return denied(err, "the token's uses are used up");
	if (facts->unwrap != (row->wraps != TOKEN_WRAPS_NOTHING))
		return denied(err, row->wraps ? "a wrapping token is good for sys/wrapping/unwrap alone" : "not a wrapping token");
	v->step = "job";
	if (!sodium_is_zero(row->job_id, sizeof(row->job_id)) && (!row->job || job_ended(row->job, facts->boot_ms)))
		return denied(err, "the token's job has ended");
	return 0;
}

static int check_policies(const struct tokens *t, const struct token_row *row, const struct token_facts *facts, struct token_verdict *v,
			  struct err *err)
{
	const struct policy_question q = {.path = facts->path, .folder = facts->folder, .op = facts->op, .meta = row->meta, .literal = facts->literal};
	struct policy_answer a = policy_decide(t->config, row->policies, &q);

	v->step = "policy";
	if (strncmp(facts->path, PATH_PENDING, strlen(PATH_PENDING)) == 0)
		return denied(err, "what waits to become current is the operators' alone");
	v->policy = a.policy ? a.policy->name : NULL;
	v->rule = a.rule;
	if (a.verdict == POLICY_ALLOWS)
		return 0;
	return denied(err, a.verdict == POLICY_DENIES ? "a policy of the token denies it" : "no policy of the token allows it");
}

/* Everything behind the HMAC chain; count takes one use. */
static int weigh(struct tokens *t, struct token_row *row, const struct macaroon *m, const struct token_facts *facts, bool count,
		 struct token_verdict *v, struct err *err)
{
	struct caveat_context c = {.facts = facts, .store = t->store, .row = row, .count = count};
	int r = check_peer(row, facts, v, err);

	for (size_t i = 0; r == 0 && i < m->n_caveats; i++) {
		v->step = "caveat";
		v->caveat = i + 1;
		c.sig = m->sigs[i];
		r = caveat_check(&m->caveats[i], &c, err);
	}
	if (r == 0)
		v->caveat = 0;
	return r == 0 && facts->op ? check_policies(t, row, facts, v, err) : r;
}

static int find_row(struct tokens *t, const struct macaroon *m, struct token_row **ret_row, struct err *err)
{
	struct token_row *row = token_find(t, m->id + 5);
	uint8_t id[MACAROON_ID_LEN];

	if (!row)
		return denied(err, "no such token: it ended, or was never made here");
	token_macaroon_id(row, id);
	if (memcmp(id, m->id, sizeof(id)) != 0)
		return denied(err, "no such token");
	*ret_row = row;
	return 0;
}

static int identify(struct tokens *t, struct macaroon *m, struct token_row **ret_row, struct token_verdict *v, struct err *err)
{
	int r;

	*v = (struct token_verdict){.step = "row"};
	r = find_row(t, m, ret_row, err);
	if (r < 0)
		return r;
	v->step = "signature";
	if (m->verified)
		return 0;
	if ((*ret_row)->epoch != t->epoch || !macaroon_verify(m, token_root(t)))
		return denied(err, "the token's signature is wrong");
	return 0;
}

int token_identify(struct tokens *t, struct macaroon *m, struct token_row **ret_row, struct err *err)
{
	struct token_verdict unused;

	return identify(t, m, ret_row, &unused, err);
}

int token_check(struct tokens *t, struct macaroon *m, const struct token_facts *facts, struct token_row **ret_row,
		struct token_verdict *ret_verdict, struct err *err)
{
	struct token_verdict unused = {0}, *v = ret_verdict ? ret_verdict : &unused;
	int r = identify(t, m, ret_row, v, err);

	if (r < 0)
		return r;
	v->row = *ret_row;
	return weigh(t, *ret_row, m, facts, false, v, err);
}

bool token_may(struct tokens *t, const struct macaroon *m, const struct token_facts *facts)
{
	struct token_verdict v;
	struct token_row *row;

	return m->verified && find_row(t, m, &row, NULL) == 0 && weigh(t, row, m, facts, false, &v, NULL) == 0;
}

static bool has_uses_caveat(const struct macaroon *m)
{
	for (size_t i = 0; i < m->n_caveats; i++)
		if (m->caveats[i].len > 5 && memcmp(m->caveats[i].p, "uses ", 5) == 0)
			return true;
	return false;
}

int token_use(struct tokens *t, const struct macaroon *m, const struct token_facts *facts, struct err *err)
{
	struct token_verdict v;
	struct token_row *row;
	int64_t uses_left;
	int r;

	/* the bytes in the arena are those that token_check verified: the chain need not be computed again */
	if (!m->verified)
		return denied(err, "the token was not verified");
	r = find_row(t, m, &row, err);
	if (r < 0)
		return r;
	uses_left = row->uses_left;
	if (facts->op == 0 || (row->uses_left < 0 && !has_uses_caveat(m)))
		return weigh(t, row, m, facts, false, &v, err);
	r = store_begin(t->store, err);
	if (r < 0)
		return r;
	r = weigh(t, row, m, facts, true, &v, err);
	if (r == 0 && row->uses_left > 0) {
		row->uses_left--;
		r = store_token_put(t->store, t->boot_id, row, err);
	}
	if (r == 0)
		r = store_end(t->store, true, err);
	else
		store_end(t->store, false, NULL);
	if (r < 0)
		row->uses_left = uses_left;
	return r;
}
