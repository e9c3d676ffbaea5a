#include "broker/hardware.h"

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

struct hardware_op {
	struct hardware_op *next;
	enum wire_op op;
	char text[LIMIT_URI_LEN];
	char text2[96];
	uint32_t number, type, hash, salt_len;
	struct secret pin;
	hardware_done *done; /* NULL: nobody waits */
	void *ctx;
	bool retried;
	uint64_t asker, turn;
	size_t data_len;
	uint8_t data[]; /* public */
};

/* May be done twice without harm. */
static bool is_safe(enum wire_op op)
{
	return op == WIRE_AGREE || op == WIRE_SIGN || op == WIRE_FIND;
}

static void op_free(struct hardware_op *op)
{
	if (op)
		secret_clear(&op->pin);
	free(op);
}

const char *hardware_state_name(enum hardware_state state)
{
	static const char *const names[] = {"starting", "ready", "pin-needed", "absent"};

	return names[state];
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

static void push_front(struct hardware_provider *p, struct hardware_op *op)
{
	op->next = p->head;
	p->head = op;
	if (!p->tail)
		p->tail = op;
	p->n_queued++;
}

static void push_back(struct hardware_provider *p, struct hardware_op *op)
{
	if (p->tail)
		p->tail->next = op;
	else
		p->head = op;
	p->tail = op;
	p->n_queued++;
}

/*
 * Start-time fair queueing: each asker's operations have turns of their own, beginning with that which is being served, so who has a
 * thousand waiting is behind whoever comes with one. ERR_BUSY: the asker has too many.
 */
static int push_fair(struct hardware_provider *p, struct hardware_op *op, struct err *err)
{
	struct hardware_op **at = &p->head, *last = NULL;
	size_t n = 0;

	op->turn = p->turn;
	for (struct hardware_op *o = p->head; o; o = o->next) {
		if (o->asker != op->asker)
			continue;
		/* what a helper's start needs stands in front, without a turn */
		op->turn = o->turn >= op->turn ? o->turn + 1 : op->turn;
		n++;
	}
	if (op->asker && n >= LIMIT_HARDWARE_QUEUE_PER_ASKER)
		return err_set(err, ERR_BUSY, "too many of this job's operations wait for '%s'", p->config->name);
	while (*at && ((p->busy && *at == p->head) || (*at)->turn <= op->turn)) {
		last = *at;
		at = &(*at)->next;
	}
	op->next = *at;
	*at = op;
	if (p->tail == last)
		p->tail = op;
	p->n_queued++;
	return 0;
}

static struct hardware_op *pop(struct hardware_provider *p)
{
	struct hardware_op *op = p->head;

	p->head = op->next;
	if (!p->head)
		p->tail = NULL;
	p->n_queued--;
	return op;
}

static void finish(struct hardware_op *op, int result, const struct wire_reply *reply, const char *message)
{
	if (op->done)
		op->done(op->ctx, result, reply, message);
	op_free(op);
}

/* What the provider's state says to whoever asks for its keys. */
static void fail_waiting(struct hardware_provider *p, int result)
{
	struct hardware_op *kept = NULL, **tail = &kept, *op;
	char message[256];

	memcpy(message, p->problem, sizeof(message));
	while (p->head && !p->busy) {
		op = pop(p);
		/* an operator's PIN is what the others wait for */
		if (result == -ERR_PIN && op->op == WIRE_LOGIN) {
			op->next = NULL;
			*tail = op;
			tail = &op->next;
		} else {
			finish(op, result, NULL, message);
		}
	}
	while ((op = kept)) {
		kept = op->next;
		op->next = NULL;
		push_back(p, op);
	}
}

static void send_head(struct hardware_provider *p);
static void login_done(void *ctx, int result, const struct wire_reply *reply, const char *message);

static void close_helper(struct hardware_provider *p)
{
	if (p->fd >= 0) {
		epoll_ctl(p->hardware->epoll_fd, EPOLL_CTL_DEL, p->fd, NULL);
		close(p->fd);
	}
	p->fd = -1;
	p->busy = false;
	memset(p->proven, 0, sizeof(p->proven));
}

/* The helper died or was killed. An operation in flight is tried once more where that is safe; a PIN is not
 * offered again. */
static void lost(struct hardware_provider *p, const char *why)
{
	struct hardware_op *op = p->busy ? pop(p) : NULL;

	log_warn("provider '%s': the helper is gone: %s", p->config->name, why);
	close_helper(p);
	if (p->state == HARDWARE_READY || p->state == HARDWARE_STARTING)
		p->state = HARDWARE_STARTING;
	/* at once the first time, then 1, 2, 4 … 30 s */
	p->retry_ms = token_boot_ms() + (p->failures == 0 ? 0 : p->failures > 5 ? 30000 : 500ull << p->failures);
	p->failures++;
	p->n_restarts++;
	if (!op)
		return;
	if (op->op == WIRE_LOGIN && (op->pin.len || strstr(p->config->uri, "pin-source="))) {
		/* whether the token counted that try, nobody knows: it is not repeated */
		set_state(p, HARDWARE_PIN_NEEDED, "the helper died while it logged in; the PIN is not tried again: run 'cotter unlock'");
		finish(op, -ERR_PIN, NULL, p->problem);
		fail_waiting(p, -ERR_PIN);
		return;
	}
	if (is_safe(op->op) && !op->retried && p->failures <= 1) {
		op->retried = true;
		push_front(p, op);
	} else {
		finish(op, -ERR_HARDWARE, NULL, why);
	}
	if (p->failures > 1) {
		snprintf(p->problem, sizeof(p->problem), "the helper keeps failing: %.200s", why);
		fail_waiting(p, -ERR_HARDWARE);
	}
}

static void kill_helper(struct hardware_provider *p, const char *why)
{
	launcher_kill(p->hardware->launcher_fd, p->index);
	lost(p, why);
}

static void send_head(struct hardware_provider *p)
{
	struct wire_request *q = p->hardware->request;
	struct hardware_op *op = p->head;
	ssize_t n;

	if (p->busy || !op || p->fd < 0)
		return;
	*q = (struct wire_request){.magic = WIRE_MAGIC, .id = ++p->next_id, .op = op->op};
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
	p->busy = true;
	p->turn = op->turn > p->turn ? op->turn : p->turn;
	/* a TPM looks for primes for a while */
	p->deadline_ms = token_boot_ms() + (op->op == WIRE_MAKE ? 6u : 1u) * LIMIT_HARDWARE_TIMEOUT_MS;
	n = send(p->fd, q, sizeof(*q), MSG_NOSIGNAL | MSG_DONTWAIT);
	sodium_memzero(q, sizeof(*q));
	if (n < 0)
		p->deadline_ms = 0; /* the tick ends it: nobody's callback runs inside a caller of ours */
}

static struct hardware_op *op_new_with(enum wire_op op, const char *text, const uint8_t *data, size_t len, hardware_done *done, void *ctx)
{
	struct hardware_op *o = calloc(1, sizeof(*o) + len);

	if (!o)
		return NULL;
	o->op = op;
	o->done = done;
	o->ctx = ctx;
	o->data_len = len;
	if (len)
		memcpy(o->data, data, len);
	snprintf(o->text, sizeof(o->text), "%s", text);
	return o;
}

static struct hardware_op *op_new(enum wire_op op, hardware_done *done, void *ctx)
{
	return op_new_with(op, "", NULL, 0, done, ctx);
}

/* 2, 4, 8 … 30 s: each look is a fresh helper, as many modules see a new token only when they start. */
static void retry_later(struct hardware_provider *p)
{
	p->retry_ms = token_boot_ms() + (p->failures > 3 ? 30000 : 2000ull << p->failures);
	p->failures++;
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
		retry_later(p);
		fail_waiting(p, -ERR_HARDWARE);
		return;
	}
	if (p->pin_hold) {
		/* an operator's turn, not ours; whoever waits for anything but such a login is told */
		set_state(p, HARDWARE_PIN_NEEDED, p->pin_problem);
		fail_waiting(p, -ERR_PIN);
		return;
	}
	op = op_new(WIRE_LOGIN, login_done, p);
	if (op)
		push_front(p, op);
}

static void start(struct hardware_provider *p)
{
	struct epoll_event ev = {.events = EPOLLIN, .data.ptr = p};
	struct hardware_op *op = op_new(WIRE_OPEN, open_done, p);
	struct err err = {0};

	if (!op || launcher_spawn(p->hardware->launcher_fd, p->index, ++p->hardware->n_spawned, &p->fd, &err) < 0 ||
	    epoll_ctl(p->hardware->epoll_fd, EPOLL_CTL_ADD, p->fd, &ev) < 0) {
		op_free(op);
		set_state(p, HARDWARE_ABSENT, err.msg);
		p->retry_ms = token_boot_ms() + 5000;
		fail_waiting(p, -ERR_HARDWARE);
		return;
	}
	snprintf(op->text, sizeof(op->text), "%s", p->config->uri);
	snprintf(op->text2, sizeof(op->text2), "%s", p->config->srk_name);
	push_front(p, op);
	send_head(p);
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
			op_free(pop(p));
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
		op_free(op);
		return err_set(err, ERR_BUSY, "too many operations wait for '%s'", p->config->name);
	}
	if (push_fair(p, op, err) < 0) {
		op_free(op);
		return -ERR_BUSY;
	}
	send_head(p);
	return 0;
}

static int check_state(const struct hardware_provider *p, struct err *err)
{
	if (p->state == HARDWARE_PIN_NEEDED)
		return err_set(err, ERR_PIN, "provider '%s': %s", p->config->name, p->problem);
	if (p->state == HARDWARE_ABSENT)
		return err_set(err, ERR_HARDWARE, "provider '%s': %s", p->config->name, p->problem);
	return 0;
}

int hardware_agree(struct hardware_provider *p, const char *ref, const uint8_t peer[P256_POINT_LEN], uint64_t asker, hardware_done *done,
		   void *ctx, struct err *err)
{
	struct hardware_op *op;
	int r = check_state(p, err);

	if (r < 0)
		return r;
	op = op_new_with(WIRE_AGREE, ref, peer, P256_POINT_LEN, done, ctx);
	if (op)
		op->asker = asker;
	return submit(p, op, err);
}

int hardware_find(struct hardware_provider *p, const char *ref, hardware_done *done, void *ctx, struct err *err)
{
	int r = check_state(p, err);

	return r < 0 ? r : submit(p, op_new_with(WIRE_FIND, ref, NULL, 0, done, ctx), err);
}

int hardware_make(struct hardware_provider *p, enum key_type type, const char *label, hardware_done *done, void *ctx, struct err *err)
{
	struct hardware_op *op;
	int r = check_state(p, err);

	if (r < 0)
		return r;
	op = op_new_with(WIRE_MAKE, label, NULL, 0, done, ctx);
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
	op = op_new_with(WIRE_SIGN, ref, q->data, q->len, done, ctx);
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

	/* a fresh helper: the sandbox of the old one may not see a PIN file that was put in place since */
	if (!pin && !p->busy) {
		close_helper(p);
		start(p);
	}
	if (p->fd < 0)
		return err_set(err, ERR_HARDWARE, "provider '%s': %s", p->config->name, p->problem);
	op = op_new(WIRE_LOGIN, done, ctx);
	if (op && pin && secret_copy(&op->pin, pin->data, pin->len, err) < 0) {
		op_free(op);
		return -ERR_BUSY;
	}
	return submit(p, op, err);
}

bool hardware_cancel(struct hardware *h, void *ctx)
{
	bool started = false;

	for (size_t i = 0; i < h->n_providers; i++) {
		struct hardware_provider *p = &h->providers[i];
		struct hardware_op *kept = NULL, *last = NULL, *next;

		for (struct hardware_op *op = p->head; op; op = next) {
			next = op->next;
			if (op->ctx == ctx && !(p->busy && op == p->head)) {
				op_free(op);
				p->n_queued--;
				continue;
			}
			if (op->ctx == ctx) {
				op->done = NULL; /* in flight: its answer finds nobody */
				op->ctx = NULL;  /* the next caller may have that address */
				started = true;
			}
			op->next = NULL;
			if (last)
				last->next = op;
			else
				kept = op;
			last = op;
		}
		p->head = kept;
		p->tail = last;
	}
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

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		lost(p, "it ended (the vendor's module crashed?)");
		return;
	}
	if (!p->busy || !wire_reply_valid(a, (size_t)n, p->next_id)) {
		kill_helper(p, "it talks nonsense");
		return;
	}
	op = pop(p);
	p->busy = false;
	p->n_operations++;
	remember_pin(p, op, a);
	/* an operator's login is told to the provider's state first, then to the operator */
	if (op->op == WIRE_LOGIN && op->done != login_done && a->result != -ERR_USAGE)
		login_done(p, a->result, NULL, a->message);
	else if (op->op != WIRE_LOGIN && a->result == -ERR_PIN)
		set_state(p, HARDWARE_PIN_NEEDED, a->message);
	finish(op, a->result, a->result == 0 ? a : NULL, a->message);
	sodium_memzero(a, sizeof(*a));
	if (p->state == HARDWARE_PIN_NEEDED)
		fail_waiting(p, -ERR_PIN);
	send_head(p);
}

void hardware_tick(struct hardware *h, uint64_t now_ms)
{
	for (size_t i = 0; i < h->n_providers; i++) {
		struct hardware_provider *p = &h->providers[i];

		if (p->busy && now_ms >= p->deadline_ms) {
			kill_helper(p, "it did not answer in time and was killed");
		} else if (!p->busy && now_ms >= p->retry_ms && (p->fd < 0 || p->state == HARDWARE_ABSENT)) {
			/* perhaps the token is back; no PIN is at risk, it was not refused */
			close_helper(p);
			start(p);
		}
	}
}
