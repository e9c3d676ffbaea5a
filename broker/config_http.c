#include "broker/config_http.h"

#include "broker/config.h"
#include "broker/config_role.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Not the network's: tokens go over it as they are. */
static int set_listen(struct yaml_place at, const char *text, void *target, struct err *err)
{
	struct config *c = target;
	char host[INET_ADDRSTRLEN], *end;
	const char *colon = strrchr(text, ':');
	unsigned long port = colon ? strtoul(colon + 1, &end, 10) : 0;

	if (!colon || (size_t)(colon - text) >= sizeof(host) || colon[1] < '1' || colon[1] > '9' || *end || port > 65535)
		return yaml_fail(at, err, "expected 127.0.0.1:PORT, found '%.40s'", text);
	snprintf(host, sizeof(host), "%.*s", (int)(colon - text), text);
	c->listen = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
	if (inet_pton(AF_INET, host, &c->listen.sin_addr) != 1 || ntohl(c->listen.sin_addr.s_addr) >> 24 != 127)
		return yaml_fail(at, err, "expected an address of this machine alone, such as 127.0.0.1:8200, found '%.40s'", text);
	return 0;
}

static int set_require_header(struct yaml_place at, const char *text, void *target, struct err *err)
{
	struct config *c = target;

	return config_bool(at, text, &c->require_request_header, err);
}

const struct yaml_field config_http_fields[] = {
	{"listen", YAML_CALL, .set = set_listen},
	{"require_request_header", YAML_CALL, .set = set_require_header},
	{0},
};
