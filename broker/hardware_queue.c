#include "broker/hardware_queue.h"

#include "common/err.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct hardware_op *hardware_op_new_with(enum wire_op op, const char *text, const uint8_t *data, size_t len, hardware_done *done, void *ctx)
{
	struct hardware_op *o = calloc(1, sizeof(*o) + len);

	if (!o)
		return NULL;
	o->op = op;
	o->queued_ns = metrics_now_ns();
	o->done = done;
	o->ctx = ctx;
	o->data_len = len;
	if (len)
		memcpy(o->data, data, len);
	snprintf(o->text, sizeof(o->text), "%s", text);
	return o;
}

struct hardware_op *hardware_op_new(enum wire_op op, hardware_done *done, void *ctx)
{
	return hardware_op_new_with(op, "", NULL, 0, done, ctx);
}

void hardware_op_free(struct hardware_op *op)
{
	if (op)
		secret_clear(&op->pin);
	free(op);
}

void hardware_queue_front(struct hardware_provider *p, struct hardware_op *op)
{
	op->next = p->head;
	p->head = op;
	if (!p->tail)
		p->tail = op;
	p->n_queued++;
}

int hardware_queue_fair(struct hardware_provider *p, struct hardware_op *op, struct err *err)
{
	struct hardware_op **at = &p->head, *last = NULL;
	size_t n = 0, sent = p->n_sent;

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
	while (*at && (sent || (*at)->turn <= op->turn)) {
		sent -= sent > 0;
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

struct hardware_op *hardware_queue_pop(struct hardware_provider *p)
{
	struct hardware_op *op = p->head;

	p->head = op->next;
	if (!p->head)
		p->tail = NULL;
	p->n_queued--;
	return op;
}

struct hardware_op *hardware_queue_answered(struct hardware_provider *p, uint32_t id)
{
	struct hardware_op **at = &p->head, *last = NULL, *op;
	size_t n = p->n_sent;

	for (; n && ((*at)->id != id || !(*at)->began_ns); n--) {
		last = *at;
		at = &(*at)->next;
	}
	if (!n)
		return NULL;
	op = *at;
	*at = op->next;
	if (p->tail == op)
		p->tail = last;
	op->next = NULL;
	p->n_queued--;
	p->n_sent--;
	return op;
}

bool hardware_queue_login_first(struct hardware_provider *p)
{
	struct hardware_op **at = &p->head, *last = NULL, *op;

	while (*at && (*at)->op != WIRE_LOGIN) {
		last = *at;
		at = &(*at)->next;
	}
	op = *at;
	if (!op || !last)
		return op != NULL;
	*at = op->next;
	if (p->tail == op)
		p->tail = last;
	p->n_queued--;
	hardware_queue_front(p, op);
	return true;
}

void hardware_queue_overtake(struct hardware_provider *p, uint32_t id, uint64_t latest_ms)
{
	struct hardware_op *op = p->head;

	for (size_t n = p->n_sent; n--; op = op->next)
		if (op->began_ns && (int32_t)(id - op->id) > 0 && latest_ms < op->deadline_ms)
			op->deadline_ms = latest_ms;
}

struct hardware_op *hardware_queue_take(struct hardware_provider *p, bool keep_logins)
{
	struct hardware_op **at = &p->head, *last = NULL, *op;
	size_t sent = p->n_sent;

	while (*at && (sent || (keep_logins && (*at)->op == WIRE_LOGIN))) {
		sent -= sent > 0;
		last = *at;
		at = &(*at)->next;
	}
	op = *at;
	if (!op)
		return NULL;
	*at = op->next;
	if (p->tail == op)
		p->tail = last;
	p->n_queued--;
	op->next = NULL;
	return op;
}

bool hardware_queue_forget(struct hardware_provider *p, const void *ctx)
{
	struct hardware_op *kept = NULL, *last = NULL, *next;
	size_t sent = p->n_sent;
	bool started = false;

	for (struct hardware_op *op = p->head; op; op = next, sent -= sent > 0) {
		next = op->next;
		if (op->ctx == ctx && sent == 0) {
			hardware_op_free(op);
			p->n_queued--;
			continue;
		}
		if (op->ctx == ctx) {
			op->done = NULL; /* its answer finds nobody */
			op->ctx = NULL;	 /* the next caller may have that address */
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
	return started;
}
