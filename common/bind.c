#include "common/bind.h"

#include "common/age_header.h"
#include "common/buf.h"
#include "common/err.h"

#include <sodium.h>
#include <string.h>

static const char type[] = "cotter/bind-v1";

static bool path_char(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || (c && strchr("._@+-", c));
}

static bool component_valid(const char *p, size_t len)
{
	if (len == 0 || len > LIMIT_COMPONENT_LEN || (p[0] == '.' && (len == 1 || (len == 2 && p[1] == '.'))))
		return false;
	for (size_t i = 0; i < len; i++)
		if (!path_char(p[i]))
			return false;
	return true;
}

bool path_valid(const char *path)
{
	size_t n;

	if (strlen(path) > LIMIT_PATH_LEN)
		return false;
	for (;;) {
		n = strcspn(path, "/");
		if (!component_valid(path, n))
			return false;
		if (!path[n])
			return true;
		path += n + 1;
	}
}

int bind_init(struct bind *b, const char *path, uint64_t version, const char *metadata, struct err *err)
{
	if (!path_valid(path))
		return err_set(err, ERR_INPUT,
			       "not a secret's path: use letters, digits and ._@+- in components joined by single slashes");
	*b = (struct bind){.version = version};
	memcpy(b->path, path, strlen(path) + 1);
	crypto_hash_sha256(b->metadata_hash, (const uint8_t *)metadata, strlen(metadata));
	return 0;
}

void bind_write(const struct bind *b, struct writer *w)
{
	uint8_t body[2 + LIMIT_PATH_LEN + 8 + 32];
	struct writer out = writer_init(body, sizeof(body));
	const char *args[] = {type};

	writer_u16be(&out, (uint16_t)strlen(b->path));
	writer_str(&out, b->path);
	writer_u64be(&out, b->version);
	writer_bytes(&out, b->metadata_hash, sizeof(b->metadata_hash));
	age_header_write_stanza(w, args, 1, body, out.len);
}

static bool parse(const struct age_stanza *s, struct bind *ret)
{
	struct reader in = reader_init(s->body, s->body_len);
	uint16_t len = reader_u16be(&in);
	const uint8_t *p = reader_bytes(&in, len);
	const uint8_t *hash;

	*ret = (struct bind){0};
	ret->version = reader_u64be(&in);
	hash = reader_bytes(&in, sizeof(ret->metadata_hash));
	if (s->n_args != 1 || !p || !hash || !reader_done(&in) || len > LIMIT_PATH_LEN || memchr(p, 0, len))
		return false;
	memcpy(ret->path, p, len);
	memcpy(ret->metadata_hash, hash, sizeof(ret->metadata_hash));
	return path_valid(ret->path);
}

static const struct age_stanza *find(const struct age_header *header, size_t *ret_n)
{
	const struct age_stanza *found = NULL;

	*ret_n = 0;
	for (size_t i = 0; i < header->n_stanzas; i++) {
		if (age_stanza_is(&header->stanzas[i], type)) {
			found = &header->stanzas[i];
			++*ret_n;
		}
	}
	return found;
}

int bind_check(const struct age_header *header, struct err *err)
{
	struct bind b;
	size_t n;
	const struct age_stanza *s = find(header, &n);

	if (n > 1 || (s && !parse(s, &b)))
		return err_set(err, ERR_AGE_HEADER, "header failure: the cotter/bind-v1 stanza is malformed");
	return 0;
}

bool bind_read(const struct age_header *header, struct bind *ret)
{
	size_t n;
	const struct age_stanza *s = find(header, &n);

	return s && parse(s, ret);
}

int bind_enforce(const struct age_header *header, const char *path, uint64_t version, struct err *err)
{
	struct bind b;

	if (!bind_read(header, &b))
		return 0;
	if (strcmp(b.path, path) != 0 || (b.version != 0 && b.version != version))
		return b.version ? err_set(err, ERR_TAMPERED, "the file was sealed for %s version %llu, not for %s version %llu", b.path,
					   (unsigned long long)b.version, path, (unsigned long long)version)
				 : err_set(err, ERR_TAMPERED, "the file was sealed for %s, not for %s", b.path, path);
	return 0;
}
