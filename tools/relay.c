#include "tools/relay.h"

#include "common/err.h"
#include "mask/forms.h"
#include "mask/mask.h"
#include "tools/cli.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <unistd.h>

int relay_write(void *context, const void *data, size_t len, struct err *err)
{
	const int *fd = context;

	return cli_write_all(*fd, data, len, err);
}

int relay_step(struct mask *m, int in, bool *ret_end, struct err *err)
{
	size_t room;
	uint8_t *to = mask_room(m, &room);
	ssize_t n = read(in, to, room);

	*ret_end = false;
	if (n < 0 && (errno == EINTR || errno == EAGAIN))
		return 0;
	/* a terminal whose other side is closed says EIO */
	if (n < 0 && errno != EIO)
		return err_errno(err, errno, "cannot read what is to be masked");
	if (n > 0)
		return mask_put(m, (size_t)n, err);
	*ret_end = true;
	return mask_end(m, err);
}

int relay_all(struct mask *m, int in, struct err *err)
{
	bool end = false;
	int r = 0;

	while (r == 0 && !end) {
		struct pollfd p = {.fd = in, .events = POLLIN};

		if (mask_waits(m) && poll(&p, 1, MASK_IDLE_MS) == 0) {
			r = mask_idle(m, err);
			if (r == 0)
				poll(&p, 1, -1);
		}
		if (r == 0)
			r = relay_step(m, in, &end, err);
	}
	return r;
}

void relay_tell_short(size_t len, const char *name, size_t number, bool added)
{
	char text[32];

	if (added && len >= FORMS_MIN_DEFAULT)
		return;
	snprintf(text, sizeof(text), "value %zu", number);
	fprintf(stderr,
		added ? "cotter: %s has %zu bytes: hiding it hides much else\n"
		      : "cotter: %s has %zu bytes (or white space alone): it is not hidden\n",
		name ? name : text, len);
}
