#include "broker/key_rule.h"

#include "broker/api_ca.h"
#include "broker/approval.h"
#include "broker/policy.h"
#include "broker/rate.h"
#include "broker/yaml_schema.h"
#include "common/err.h"
#include "common/log.h"

#include <sodium.h>
#include <stdlib.h>
#include <string.h>

/* The key behind a role of certificates; NULL: the name is a key's own. */
static const char *ca_of(const struct config *config, const char *key)
{
	return strncmp(key, "pki/", 4) == 0 ? config->pki.key : strncmp(key, "ssh/", 4) == 0 ? config->ssh.key : NULL;
}

static bool matches(const struct config_key_rule *rule, const char *name)
{
	return name && *name && policy_pattern_matches(rule->pattern, name, false, "", false);
}

bool key_rule_applies(const struct config *config, const struct config_key_rule *rule, const char *key)
{
	return matches(rule, key) || matches(rule, ca_of(config, key));
}

bool key_rule_wants_approval(const struct config *config, const char *key)
{
	for (size_t i = 0; i < config->n_key_rules; i++)
		if (config->key_rules[i].approvals && key_rule_applies(config, &config->key_rules[i], key))
			return true;
	return false;
}

static struct job *job_of(const struct call *call)
{
	return call->job_id[0] ? job_find(&call->broker->jobs, call->job_id) : NULL;
}

/* ---- rates ------------------------------------------------------------------------------------------------------ */

struct share {
	const struct config_key_rule *rule;
	size_t number; /* of the rule */
	const char *key;
	bool per_job;
};

/* What is limited, and how: after a reload with other numbers it is another thing. asker: 0: all of them. */
static void rate_id(const struct share *share, struct config_rate limit, uint64_t asker, uint8_t ret[RATE_ID_LEN])
{
	crypto_generichash_state st;
	const uint64_t numbers[] = {share->number, limit.n, limit.per_ms, asker};

	crypto_generichash_init(&st, NULL, 0, RATE_ID_LEN);
	crypto_generichash_update(&st, (const uint8_t *)share->rule->pattern, strlen(share->rule->pattern) + 1);
	crypto_generichash_update(&st, (const uint8_t *)share->key, strlen(share->key) + 1);
	crypto_generichash_update(&st, (const uint8_t *)numbers, sizeof(numbers));
	crypto_generichash_final(&st, ret, RATE_ID_LEN);
}

/* A job's share is its uid's in its cgroup: whoever logs in anew has no new one. A uid with very many cgroups has one for the rest of them. */
static uint32_t choose_share(const struct call *call, const struct share *share, struct config_rate limit, uint64_t now_ms, uint8_t ret[RATE_ID_LEN])
{
	const struct rate *list = call->broker->rates;
	uint32_t uid = call->facts.uid;

	rate_id(share, limit, share->per_job ? call_asker(call) : 0, ret);
	if (!share->per_job)
		return RATE_OF_ALL;
	if (!rate_known(list, ret, now_ms) && rate_count(list, uid, now_ms) >= LIMIT_RATES_PER_UID)
		rate_id(share, limit, (uint64_t)uid + 1, ret);
	return uid;
}

/* Without take: whether there is room for n more. */
static int pass_rate(struct call *call, const struct share *share, uint32_t n, bool take, struct err *err)
{
	struct config_rate limit = share->per_job ? share->rule->rate_per_job : share->rule->rate;
	uint64_t now_ms = token_boot_ms(), wait_ms;
	uint8_t id[RATE_ID_LEN];
	uint32_t uid;

	if (!limit.n)
		return 0;
	uid = choose_share(call, share, limit, now_ms, id);
	if (take)
		return rate_take(&call->broker->rates, id, uid, limit, n, now_ms, err);
	wait_ms = rate_wait(call->broker->rates, id, limit, n, now_ms);
	if (wait_ms == UINT64_MAX)
		return err_set(err, ERR_INPUT, "a batch of %u, and the key's rate is %u in %llu s", n, limit.n, (unsigned long long)(limit.per_ms / 1000));
	if (wait_ms)
		return err_set(err, ERR_BUSY, "the key's rate %s%u uses in %llu s: try again in %llu s", share->per_job ? "allows a job " : "is ", limit.n,
			       (unsigned long long)(limit.per_ms / 1000), (unsigned long long)(wait_ms + 999) / 1000);
	return 0;
}

/* All rates have room, or of none anything is taken. A certificate counts for its role and for the CA's key. */
static int pass_rates(struct call *call, uint32_t n, struct err *err)
{
	const struct config *config = &call->broker->config;
	const char *names[] = {call->path, ca_of(config, call->path)};
	int r = 0;

	for (int take = 0; take <= 1; take++) {
		for (size_t i = 0; r == 0 && i < 4 * config->n_key_rules; i++) {
			struct share share = {.rule = &config->key_rules[i / 4], .number = i / 4, .key = names[i / 2 % 2], .per_job = i % 2};

			if (matches(share.rule, share.key))
				r = pass_rate(call, &share, n, take, err);
		}
	}
	return r;
}

static void go_on(struct call *call)
{
	struct err err = {0};

	if (pass_rates(call, call->uses, &err) < 0)
		call_fail(call, -(int)err.code, err.msg);
	else
		call->go(call);
}

/* ---- approvals -------------------------------------------------------------------------------------------------- */

static void refuse(struct call *call, const struct approval_answer *a)
{
	char text[160];

	if (a->state == APPROVAL_REFUSED)
		snprintf(text, sizeof(text), "an operator refused this job the use of the key");
	else
		snprintf(text, sizeof(text), "the key wants %u more approval%s of this job: 'cotter approve', then ask again", a->n, a->n == 1 ? "" : "s");
	call_fail(call, -ERR_APPROVAL, text);
}

static int ask(struct call *call, struct job *job, struct err *err)
{
	struct approval *a = NULL;
	int r = approval_get(job, call->path, &a, err);

	if (r < 0 || a->asked_ms)
		return r;
	r = call_record(call, "approval.ask", "waits", call->detail, NULL, err);
	if (r < 0)
		return r;
	a->asked_ms = token_wall_ms();
	snprintf(a->what, sizeof(a->what), "%s", call->detail);
	log_info("job %s wants to use %s: it waits for 'cotter approve'", call->job_id, call->path);
	return 0;
}

/* What was said so far decides, or does not: false. */
static bool settle(struct call *call, const struct approval_answer *a)
{
	if (a->state == APPROVAL_GIVEN)
		go_on(call);
	else if (a->state == APPROVAL_REFUSED)
		refuse(call, a);
	return a->state != APPROVAL_LACKS;
}

static int check_room(const struct call *call, struct err *err)
{
	size_t n = 0, of_job = 0, of_uid = 0;

	for (const struct call *other = call->broker->approval_waiting; other; other = other->next_waiting) {
		n++;
		of_job += strcmp(other->job_id, call->job_id) == 0;
		of_uid += other->conn->peer.uid == call->conn->peer.uid;
	}
	if (n < LIMIT_APPROVAL_WAITING && of_job < LIMIT_APPROVAL_WAITING_PER_JOB && of_uid < LIMIT_APPROVAL_WAITING_PER_UID)
		return 0;
	return err_set(err, ERR_BUSY, "too many requests wait for approvals");
}

static void wait_for(struct call *call, const struct approval_answer *a)
{
	struct call **last = &call->broker->approval_waiting;
	struct err err = {0};
	int r = ask(call, job_of(call), &err);

	if (r == 0 && a->rule->wait_ms)
		r = check_room(call, &err);
	if (r < 0) {
		call_fail(call, r, err.msg);
	} else if (a->rule->wait_ms == 0) {
		refuse(call, a);
	} else {
		call->wait_until_ms = token_boot_ms() + a->rule->wait_ms;
		call->conn->waits = true;
		call->next_waiting = NULL;
		while (*last) /* they go on in their order */
			last = &(*last)->next_waiting;
		*last = call;
	}
}

void key_rule_admit(struct call *call, uint32_t n, void (*go)(struct call *call))
{
	const struct config *config = &call->broker->config;
	struct approval_answer a = {.state = APPROVAL_GIVEN};
	const struct job *job;

	call->uses = n;
	call->go = go;
	if (key_rule_wants_approval(config, call->path)) {
		job = job_of(call);
		if (!job || !call->token) {
			call_fail(call, -ERR_APPROVAL, "the key wants approvals: only jobs use it, by a token that is of a job");
			return;
		}
		a = approval_weigh(config, job, approval_find(job, call->path), call->path);
	}
	if (!settle(call, &a))
		wait_for(call, &a);
}

/* Of a job that is gone nobody weighs anything: it is due. */
static struct approval_answer weigh(const struct call *call)
{
	const struct job *job = job_of(call);

	return job ? approval_weigh(&call->broker->config, job, approval_find(job, call->path), call->path) : (struct approval_answer){.state = APPROVAL_LACKS};
}

static bool is_decided(const struct call *call)
{
	return weigh(call).state != APPROVAL_LACKS;
}

static bool is_due(const struct call *call)
{
	return token_boot_ms() >= call->wait_until_ms;
}

/* The next that which says, out of the list: what happens then may change it. */
static struct call *take_waiting(struct broker *b, bool (*which)(const struct call *call))
{
	struct call *call;

	for (struct call **at = &b->approval_waiting; (call = *at); at = &call->next_waiting) {
		if (which(call)) {
			*at = call->next_waiting;
			return call;
		}
	}
	return NULL;
}

void key_rule_cancel(struct broker *b, const struct call *call)
{
	for (struct call **at = &b->approval_waiting; *at; at = &(*at)->next_waiting) {
		if (*at == call) {
			*at = call->next_waiting;
			return;
		}
	}
}

void key_rules_decide(struct broker *b)
{
	struct approval_answer a;
	struct call *call;

	while ((call = take_waiting(b, is_decided))) {
		a = weigh(call);
		settle(call, &a);
	}
}

void key_rules_count_waiting(struct broker *b)
{
	struct approval *a;
	struct job *job;

	for (job = b->jobs.list; job; job = job->next)
		for (a = job->approvals; a; a = a->next)
			a->n_waiting = 0;
	for (const struct call *call = b->approval_waiting; call; call = call->next_waiting) {
		job = job_of(call);
		a = job ? approval_find(job, call->path) : NULL;
		if (a)
			a->n_waiting++;
	}
}

void key_rules_forget_job(struct broker *b, struct job *job)
{
	char id[2 * JOB_ID_LEN + 1];

	job_id_text(job, id);
	/* this may be within a write of the store: the next tick ends them */
	for (struct call *call = job->approvals ? b->approval_waiting : NULL; call; call = call->next_waiting)
		if (strcmp(call->job_id, id) == 0)
			call->wait_until_ms = 0;
	approvals_done(job);
}

void key_rules_tick(struct broker *b)
{
	struct call *call;

	while ((call = take_waiting(b, is_due)))
		call_fail(call, -ERR_APPROVAL, job_of(call) ? "the key wants approvals of this job ('cotter approve'): there were not enough in time" : "the job has ended");
}

/* ---- names ------------------------------------------------------------------------------------------------------ */

static bool is_role(const struct config *config, const char *name)
{
	const bool pki = strncmp(name, "pki/", 4) == 0;

	return (pki && config_cert_role(config->pki.roles, config->pki.n_roles, name + 4)) ||
	       (strncmp(name, "ssh/", 4) == 0 && config_cert_role(config->ssh.roles, config->ssh.n_roles, name + 4));
}

/* Every version of every key: what it is, and by which name. */
struct names {
	struct named_key {
		uint8_t hash[32];
		char *path;
	} *list;
	size_t n;
};

static int add_named_key(void *ctx, const struct store_key *k)
{
	struct names *names = ctx;
	struct named_key *key = yaml_append(&names->list, &names->n, sizeof(*key));

	if (!key)
		return -ERR_FAILED;
	crypto_hash_sha256(key->hash, k->spki, k->spki_len);
	key->path = strdup(k->path);
	return key->path ? 0 : -ERR_FAILED;
}

/* A rule that came after its key's second name. */
static void check_second_names(struct broker *b)
{
	struct names names = {0};

	bool whole = store_keys(&b->store, "", add_named_key, &names, NULL) == 0, guarded;

	for (size_t i = 0; whole && i < names.n; i++) {
		guarded = key_rule_wants_approval(&b->config, names.list[i].path);
		for (size_t k = 0; guarded && k < names.n; k++)
			if (memcmp(names.list[i].hash, names.list[k].hash, sizeof(names.list[i].hash)) == 0 &&
			    !key_rule_wants_approval(&b->config, names.list[k].path))
				log_warn("keys: %s wants approvals, and the same key is used without by the name %s", names.list[i].path, names.list[k].path);
	}
	for (size_t i = 0; i < names.n; i++)
		free(names.list[i].path);
	free(names.list);
}

void key_rules_check(struct broker *b)
{
	if (b->unsealed && b->config.n_key_rules)
		check_second_names(b);
	for (size_t i = 0; b->unsealed && i < b->config.n_key_rules; i++) {
		const char *name = b->config.key_rules[i].pattern;
		struct store_key key;

		if (name[strcspn(name, "*+")] || is_role(&b->config, name))
			continue;
		if (store_key_get(&b->store, name, 0, &key, NULL) == 0)
			store_key_done(&key);
		else
			log_warn("keys: there is no key of the name %s, of which a rule speaks", name);
	}
}
