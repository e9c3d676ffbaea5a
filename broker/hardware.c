#include "broker/hardware_queue.h"

#include "broker/keyd.h"
#include "broker/launcher.h"
#include "broker/token.h"
#include "common/cleanup.h"
#include "common/err.h"
#include "common/log.h"
#include "common/secret.h"

#include <errno.h>
#include <sodium.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#define LOOK_MS 1000u /* no oftener is an absent token looked for because somebody asks */

/* May be done twice without harm. */
static bool is_safe(enum wire_op op)
{
	return op == WIRE_AGREE || op == WIRE_SIGN || op == WIRE_FIND;
}

/* Which of several it was that a helper died of nobody knows: each is tried again alone. */
static bool is_beside(const struct hardware_op *op)
{
	return is_safe(op->op) && !op->retried;
}

const char *hardware_state_name(enum hardware_state state)
{
	static const char *const names[] = {"starting", "ready", "pin-needed", "absent"};

	return names[state];
}

const char *hardware_op_name(enum wire_op op)
{
	static const char *const names[WIRE_N] = {[WIRE_OPEN] = "open", [WIRE_LOGIN] = "login", [WIRE_MAKE] = "make", [WIRE_FIND] = "find",
						  [WIRE_AGREE] = "agree", [WIRE_SIGN] = "sign"};

	return names[op];
}

static void set_state(struct hardware_provider *p, enum hardware_state state, const char *problem)
{
	bool changed = p->state != state;

	if (changed)
		log_info("provider '%s': %s%s%s", p->config->name, hardware_state_name(state), *problem ? ": " : "", problem);
	p->state = state;
	if (problem != p->problem)
		snprintf(p->problem, sizeof(p->problem), "%s", problem);
	if (state == HARDWARE_READY) {
		p->failures = 0;
		p->pin_hold = false;
	} else if (state == HARDWARE_PIN_NEEDED) {
		p->pin_hold = true;
		if (p->problem != p->pin_problem)
			memcpy(p->pin_problem, p->problem, sizeof(p->pin_problem));
	}
	if (changed)
		p->hardware->changed(p->hardware->changed_ctx, p);
}

static void count(struct hardware_provider *p, const struct hardware_op *op, bool failed)
{
	histogram_add(&p->latency, metrics_now_ns() - op->began_ns);
	p->n_done[op->op]++;
	p->n_failed[op->op] += failed;
}

static void finish(struct hardware_op *op, int result, const struct wire_reply *reply, const char *message)
{
	if (op->done)
		op->done(op->ctx, result, reply, message);
	hardware_op_free(op);
}

/* What the provider's state says to whoever asks for its keys; an operator's PIN is what they wait for, and what lies with the helper
 * gets an answer of its own. */
static void fail_waiting(struct hardware_provider *p, int result)
{
	struct hardware_op *op;
	char message[256];

	memcpy(message, p->problem, sizeof(message));
	while ((op = hardware_queue_take(p, result == -ERR_PIN)))
		finish(op, result, NULL, message);
}

static void send_some(struct hardware_provider *p);
static void login_done(void *ctx, int result, const struct wire_reply *reply, const char *message);

static void close_helper(struct hardware_provider *p)
{
	if (p->fd >= 0) {
		epoll_ctl(p->hardware->epoll_fd, EPOLL_CTL_DEL, p->fd, NULL);
		close(p->fd);
	}
	p->fd = -1;
	p->n_sent = 0;
	memset(p->proven, 0, sizeof(p->proven));
}

/* Whether what the helper was at is to be tried once more: twice does no harm, and this is not what it dies of. */
static bool again(const struct hardware_provider *p, const struct hardware_op *op)
{
	return is_safe(op->op) && !op->retried && p->deaths <= 1;
}

/* A login that was with a helper that is gone: whether the token counted that try, nobody knows, and it is not repeated. */
static bool used_a_pin(const struct hardware_provider *p, const struct hardware_op *op)
{
	return op->op == WIRE_LOGIN && (op->pin.len || strstr(p->config->uri, "pin-source="));
}

/* The helper died or was killed. What it was at is tried once more where that is safe; what only lay there is sent again. */
static void lost(struct hardware_provider *p, const char *why)
{
	struct hardware_op *sent[LIMIT_PARALLEL + 1], *op;
	const size_t n = p->n_sent;
	/* while it starts nobody else is tried */
	const unsigned int most = p->state == HARDWARE_READY ? 2 : 1;

	log_warn("provider '%s': the helper is gone: %s", p->config->name, why);
	for (size_t i = 0; i < n; i++)
		sent[i] = hardware_queue_pop(p);
	close_helper(p);
	if (p->state == HARDWARE_READY || p->state == HARDWARE_STARTING)
		p->state = HARDWARE_STARTING;
	/* at once the first time, then 1, 2, 4 … 30 s */
	p->retry_ms = token_boot_ms() + (p->deaths == 0 ? 0 : p->deaths > 5 ? 30000 : 500ull << p->deaths);
	p->deaths++;
	p->n_restarts++;
	for (size_t i = n; i-- > 0;) {
		op = sent[i];
		if (op->began_ns && !again(p, op))
			continue;
		if (op->began_ns)
			op->queued_ns = metrics_now_ns();
		op->retried |= op->began_ns != 0;
		op->began_ns = 0;
		hardware_queue_front(p, op);
		sent[i] = NULL;
	}
	/* whoever is told here must not cancel another's: it would not be found */
	for (size_t i = 0; i < n; i++) {
		op = sent[i];
		if (!op)
			continue;
		count(p, op, true);
		if (!used_a_pin(p, op)) {
			finish(op, -ERR_HARDWARE, NULL, why);
			continue;
		}
		set_state(p, HARDWARE_PIN_NEEDED, "the helper died while it logged in; the PIN is not tried again: run 'cotter unlock'");
		finish(op, -ERR_PIN, NULL, p->problem);
		fail_waiting(p, -ERR_PIN);
		return; /* it was alone */
	}
	if (n && p->deaths > most) {
		snprintf(p->problem, sizeof(p->problem), "the helper keeps failing: %.200s", why);
		fail_waiting(p, most == 1 ? -ERR_ABSENT : -ERR_HARDWARE);
	}
}

static void kill_helper(struct hardware_provider *p, const char *why)
{
	launcher_kill(p->hardware->launcher_fd, p->index);
	lost(p, why);
}

static uint64_t patience_ms(const struct hardware_op *op)
{
	return (op->op == WIRE_MAKE ? 6u : 1u) * LIMIT_HARDWARE_TIMEOUT_MS;
}

/* As many of what is with the helper as the hardware does at once have begun. The helper may still do them one by one, so that each has the time
 * of those before it; but then it answers meanwhile. A TPM looks for primes for a while. */
static void begin(struct hardware_provider *p)
{
	struct hardware_op *op = p->head;
	size_t n = p->n_sent < p->config->parallel ? p->n_sent : p->config->parallel;

	for (unsigned int i = 1; i <= n; i++, op = op->next) {
		if (op->began_ns)
			continue;
		op->began_ns = metrics_now_ns();
		p->waited_ns += op->began_ns - op->queued_ns;
		op->deadline_ms = token_boot_ms() + i * patience_ms(op);
	}
}

static bool send_one(struct hardware_provider *p, struct hardware_op *op)
{
	struct wire_request *q = p->hardware->request;
	ssize_t n;

	op->id = ++p->next_id;
	*q = (struct wire_request){.magic = WIRE_MAGIC, .id = op->id, .op = op->op};
	snprintf(q->text, sizeof(q->text), "%s", op->text);
	snprintf(q->text2, sizeof(q->text2), "%s", op->text2);
	q->number = op->op == WIRE_LOGIN ? op->done != login_done : op->number;
	q->type = op->type;
	q->hash = op->hash;
	q->salt_len = op->salt_len;
	q->data_len = (uint32_t)(op->pin.len ? op->pin.len : op->data_len);
	memcpy(q->data, op->pin.len ? op->pin.data : op->data, q->data_len);
	if (op->op == WIRE_OPEN) {
		q->data_len = (uint32_t)strlen(p->failed_pin);
		memcpy(q->data, p->failed_pin, q->data_len);
	}
	p->turn = op->turn > p->turn ? op->turn : p->turn;
	n = send(p->fd, q, wire_request_len(q), MSG_NOSIGNAL | MSG_DONTWAIT);
	sodium_memzero(q, sizeof(*q));
	return n >= 0;
}

/* What the helper has room for: beside operations that change nothing others, and behind them one more; all else alone. */
static void send_some(struct hardware_provider *p)
{
	struct hardware_op *op = p->head;
	bool sent;

	if (p->renew)
		return;
	for (size_t i = 0; op && i < p->n_sent; i++)
		op = op->next;
	for (; op && p->fd >= 0 && p->n_sent <= p->config->parallel; op = op->next) {
		if (p->n_sent && !(is_beside(p->head) && is_beside(op)))
			return;
		sent = send_one(p, op);
		if (!sent && p->n_sent)
			return; /* it has no room now */
		if (p->n_sent++ == 0)
			p->answer_ms = token_boot_ms() + patience_ms(op);
		begin(p);
		if (!sent) {
			op->deadline_ms = 0; /* the tick ends it: nobody's callback runs inside a caller of ours */
			return;
		}
	}
}

/* 2, 4, 8 … 30 s: each look is a fresh helper, as many modules see a new token only when they start. */
static void retry_later(struct hardware_provider *p)
{
	p->retry_ms = token_boot_ms() + (p->failures > 3 ? 30000 : 2000ull << p->failures);
	p->failures++;
}

/* A login that failed otherwise is not repeated for whoever asks. */
static void looked(struct hardware_provider *p, int result)
{
	p->looked_ms = token_boot_ms();
	p->may_look = result == -ERR_ABSENT;
}

/* In the middle of its work. */
static void gone(struct hardware_provider *p, const char *message)
{
	if (p->state != HARDWARE_ABSENT)
		retry_later(p);
	looked(p, -ERR_ABSENT);
	set_state(p, HARDWARE_ABSENT, message);
}

static void login_done(void *ctx, int result, const struct wire_reply *reply, const char *message)
{
	struct hardware_provider *p = ctx;

	(void)reply;
	if (result == 0)
		set_state(p, HARDWARE_READY, "");
	else if (result == -ERR_PIN)
		set_state(p, HARDWARE_PIN_NEEDED, message);
	else
		set_state(p, HARDWARE_ABSENT, message);
	if (result < 0) {
		looked(p, result);
		retry_later(p);
		fail_waiting(p, result);
	}
}

static void open_done(void *ctx, int result, const struct wire_reply *reply, const char *message)
{
	struct hardware_provider *p = ctx;
	struct hardware_op *op;

	(void)reply;
	if (result < 0) {
		set_state(p, HARDWARE_ABSENT, message);
		looked(p, result);
		retry_later(p);
		fail_waiting(p, result);
		return;
	}
	if (p->pin_hold) {
		/* an operator's turn, not ours; whoever waits for anything but such a login is told */
		set_state(p, HARDWARE_PIN_NEEDED, p->pin_problem);
		fail_waiting(p, -ERR_PIN);
		return;
	}
	if (hardware_queue_login_first(p))
		return; /* an operator's */
	op = hardware_op_new(WIRE_LOGIN, login_done, p);
	if (op)
		hardware_queue_front(p, op);
}

static void start(struct hardware_provider *p)
{
	struct epoll_event ev = {.events = EPOLLIN, .data.ptr = p};
	struct hardware_op *op = hardware_op_new(WIRE_OPEN, open_done, p);
	struct err err = {0};

	looked(p, 0);
	p->renew = false;
	if (!op || launcher_spawn(p->hardware->launcher_fd, p->index, ++p->hardware->n_spawned, &p->fd, &err) < 0 ||
	    epoll_ctl(p->hardware->epoll_fd, EPOLL_CTL_ADD, p->fd, &ev) < 0) {
		hardware_op_free(op);
		set_state(p, HARDWARE_ABSENT, err.msg);
		p->retry_ms = token_boot_ms() + 5000;
		fail_waiting(p, -ERR_ABSENT);
		return;
	}
	snprintf(op->text, sizeof(op->text), "%s", p->config->uri);
	snprintf(op->text2, sizeof(op->text2), "%s", p->config->srk_name);
	op->number = p->config->parallel;
	hardware_queue_front(p, op);
	send_some(p);
}

/* Many modules see a token that came back, or a file that was put in place, only when they start. */
static void restart(struct hardware_provider *p)
{
	close_helper(p);
	start(p);
}

int hardware_init(struct hardware *h, const struct config *config, int launcher_fd, int epoll_fd, struct err *err)
{
	h->launcher_fd = launcher_fd;
	h->epoll_fd = epoll_fd;
	h->state_dir = config->state_dir;
	h->request = secret_alloc(sizeof(*h->request));
	h->reply = secret_alloc(sizeof(*h->reply));
	if (!h->request || !h->reply)
		return err_set(err, ERR_FAILED, "out of locked memory");
	h->n_providers = config->n_providers;
	for (uint32_t i = 0; i < h->n_providers; i++) {
		h->providers[i] = (struct hardware_provider){
			.config = &config->providers[i], .hardware = h, .index = i, .fd = -1};
		keyd_load_failed_pin(h->state_dir, config->providers[i].name, h->providers[i].failed_pin);
		start(&h->providers[i]);
	}
	return 0;
}

struct hardware_provider *hardware_provider(struct hardware *h, const char *name)
{
	for (size_t i = 0; i < h->n_providers; i++)
		if (strcmp(h->providers[i].config->name, name) == 0)
			return &h->providers[i];
	return NULL;
}

bool hardware_proven(const struct hardware_provider *p, const uint8_t proof[HARDWARE_PROOF_LEN])
{
	for (size_t i = 0; i < sizeof(p->proven) / sizeof(p->proven[0]); i++)
		if (memcmp(p->proven[i], proof, HARDWARE_PROOF_LEN) == 0)
			return true;
	return false;
}

void hardware_prove(struct hardware_provider *p, const uint8_t proof[HARDWARE_PROOF_LEN])
{
	memcpy(p->proven[p->next_proven++ % (sizeof(p->proven) / sizeof(p->proven[0]))], proof, HARDWARE_PROOF_LEN);
}

void hardware_stop(struct hardware *h)
{
	for (size_t i = 0; i < h->n_providers; i++) {
		struct hardware_provider *p = &h->providers[i];

		while (p->head)
			hardware_op_free(hardware_queue_pop(p));
		if (p->fd >= 0)
			close(p->fd); /* the helper logs out and ends */
	}
	secret_free(h->request);
	secret_free(h->reply);
}

static int submit(struct hardware_provider *p, struct hardware_op *op, struct err *err)
{
	if (!op)
		return err_set(err, ERR_FAILED, "out of memory");
	if (p->n_queued >= LIMIT_HARDWARE_QUEUE) {
		hardware_op_free(op);
		return err_set(err, ERR_BUSY, "too many operations wait for '%s'", p->config->name);
	}
	if (hardware_queue_fair(p, op, err) < 0) {
		hardware_op_free(op);
		return -ERR_BUSY;
	}
	send_some(p);
	return 0;
}

static bool is_looking(const struct hardware_provider *p)
{
	return p->n_sent && (p->head->op == WIRE_OPEN || p->head->op == WIRE_LOGIN);
}

/* While a look is under way whoever asks waits for what it finds. */
static int check_state(struct hardware_provider *p, struct err *err)
{
	if (p->state == HARDWARE_PIN_NEEDED)
		return err_set(err, ERR_PIN, "provider '%s': %s", p->config->name, p->problem);
	if (p->state == HARDWARE_ABSENT && p->may_look && !p->n_sent && token_boot_ms() >= p->looked_ms + LOOK_MS)
		restart(p);
	if (p->state == HARDWARE_ABSENT && !is_looking(p))
		return err_set(err, ERR_ABSENT, "provider '%s': %s", p->config->name, p->problem);
	return 0;
}

int hardware_agree(struct hardware_provider *p, const char *ref, const uint8_t peer[P256_POINT_LEN], uint64_t asker, hardware_done *done,
		   void *ctx, struct err *err)
{
	struct hardware_op *op;
	int r = check_state(p, err);

	if (r < 0)
		return r;
	op = hardware_op_new_with(WIRE_AGREE, ref, peer, P256_POINT_LEN, done, ctx);
	if (op)
		op->asker = asker;
	return submit(p, op, err);
}

int hardware_find(struct hardware_provider *p, const char *ref, hardware_done *done, void *ctx, struct err *err)
{
	int r = check_state(p, err);

	return r < 0 ? r : submit(p, hardware_op_new_with(WIRE_FIND, ref, NULL, 0, done, ctx), err);
}

int hardware_make(struct hardware_provider *p, enum key_type type, const char *label, hardware_done *done, void *ctx, struct err *err)
{
	struct hardware_op *op;
	int r = check_state(p, err);

	if (r < 0)
		return r;
	op = hardware_op_new_with(WIRE_MAKE, label, NULL, 0, done, ctx);
	if (op) {
		op->number = PROVIDER_KEY_SIGN;
		op->type = type;
	}
	return submit(p, op, err);
}

int hardware_sign(struct hardware_provider *p, const char *ref, enum key_type type, const struct provider_sign *q, uint64_t asker, hardware_done *done,
		  void *ctx, struct err *err)
{
	struct hardware_op *op;
	int r = sign_check(type, q->scheme, q->hash, q->salt_len, q->len, err);

	if (r == 0)
		r = check_state(p, err);
	if (r < 0)
		return r;
	op = hardware_op_new_with(WIRE_SIGN, ref, q->data, q->len, done, ctx);
	if (op) {
		op->asker = asker;
		op->number = q->scheme;
		op->type = type;
		op->hash = q->hash;
		op->salt_len = (uint32_t)q->salt_len;
	}
	return submit(p, op, err);
}

int hardware_login(struct hardware_provider *p, const struct secret *pin, hardware_done *done, void *ctx, struct err *err)
{
	struct hardware_op *op;

	/* the sandbox of the old helper may not see a PIN file that was put in place since; and one that is logged in does not do it again */
	if (!pin && p->n_sent == 0)
		restart(p);
	else if (!pin)
		p->renew = true;
	if (p->fd < 0)
		return err_set(err, ERR_HARDWARE, "provider '%s': %s", p->config->name, p->problem);
	op = hardware_op_new(WIRE_LOGIN, done, ctx);
	if (op && pin && secret_copy(&op->pin, pin->data, pin->len, err) < 0) {
		hardware_op_free(op);
		return -ERR_BUSY;
	}
	return submit(p, op, err);
}

bool hardware_cancel(struct hardware *h, void *ctx)
{
	bool started = false;

	for (size_t i = 0; i < h->n_providers; i++)
		started |= hardware_queue_forget(&h->providers[i], ctx);
	return started;
}

static void remember_pin(struct hardware_provider *p, const struct hardware_op *op, struct wire_reply *a)
{
	if (a->result == -ERR_PIN && a->data_len && a->data_len < sizeof(p->failed_pin)) {
		memcpy(p->failed_pin, a->data, a->data_len);
		p->failed_pin[a->data_len] = '\0';
	} else if (a->result == 0 && op->op == WIRE_LOGIN && p->failed_pin[0]) {
		p->failed_pin[0] = '\0';
	} else {
		return;
	}
	/* this process remembers in any case; the file is for the next one */
	keyd_store_failed_pin(p->hardware->state_dir, p->config->name, p->failed_pin);
}

void hardware_event(struct hardware_provider *p)
{
	struct wire_reply *a = p->hardware->reply;
	ssize_t n = recv(p->fd, a, sizeof(*a), MSG_DONTWAIT);
	struct hardware_op *op;
	bool is_gone;

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		lost(p, "it ended (the vendor's module crashed?)");
		return;
	}
	op = wire_reply_valid(a, (size_t)n, a->id) ? hardware_queue_answered(p, a->id) : NULL;
	if (!op) {
		kill_helper(p, "it talks nonsense");
		return;
	}
	if (op->op != WIRE_OPEN && op->op != WIRE_LOGIN)
		p->deaths = 0;
	is_gone = a->result == -ERR_ABSENT && op->op != WIRE_LOGIN && op->op != WIRE_OPEN;
	p->n_operations++;
	count(p, op, a->result < 0);
	if (p->n_sent)
		p->answer_ms = token_boot_ms() + patience_ms(p->head);
	begin(p);
	hardware_queue_overtake(p, a->id, token_boot_ms() + 2 * patience_ms(op));
	remember_pin(p, op, a);
	/* an operator's login is told to the provider's state first, then to the operator */
	if (op->op == WIRE_LOGIN && op->done != login_done && a->result != -ERR_USAGE)
		login_done(p, a->result, NULL, a->message);
	else if (op->op != WIRE_LOGIN && a->result == -ERR_PIN)
		set_state(p, HARDWARE_PIN_NEEDED, a->message);
	else if (is_gone)
		gone(p, a->message);
	finish(op, a->result, a->result == 0 ? a : NULL, a->message);
	sodium_memzero(a, sizeof(*a));
	if (p->state == HARDWARE_PIN_NEEDED)
		fail_waiting(p, -ERR_PIN);
	else if (is_gone)
		fail_waiting(p, -ERR_ABSENT);
	if (p->renew && !p->n_sent)
		restart(p);
	else
		send_some(p);
}

static bool overdue(const struct hardware_provider *p, uint64_t now_ms)
{
	const struct hardware_op *op = p->head;

	for (size_t n = p->n_sent; n--; op = op->next)
		if (op->began_ns && now_ms >= op->deadline_ms)
			return true;
	return p->n_sent && now_ms >= p->answer_ms;
}

void hardware_tick(struct hardware *h, uint64_t now_ms)
{
	for (size_t i = 0; i < h->n_providers; i++) {
		struct hardware_provider *p = &h->providers[i];

		if (overdue(p, now_ms)) {
			kill_helper(p, "it did not answer in time and was killed");
		} else if (!p->n_sent && now_ms >= p->retry_ms && (p->fd < 0 || p->state == HARDWARE_ABSENT)) {
			/* perhaps the token is back; no PIN is at risk, it was not refused */
			restart(p);
		}
	}
}
