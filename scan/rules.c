#include "scan/rules.h"

#include <math.h>
#include <string.h>

/* ---- checks
 * -------------------------------------------------------------------------------------------------------------- */

static uint32_t crc32_of(const uint8_t *p, size_t len)
{
	uint32_t c = 0xffffffff;

	while (len--) {
		c ^= *p++;
		for (int i = 0; i < 8; i++)
			c = c >> 1 ^ (c & 1 ? 0xedb88320u : 0);
	}
	return ~c;
}

/* GitHub's and npm's: the last six characters are the CRC-32 of those before, in base 62. */
static bool base62_crc(const uint8_t *text, size_t len, size_t at, size_t *length)
{
	static const char digits[] = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
	const uint8_t *under = memchr(text + at, '_', *length);
	size_t start = under ? (size_t)(under - text) + 1 : at, n = at + *length - start;
	uint32_t c;

	(void)len;
	if (n < 7)
		return false;
	c = crc32_of(text + start, n - 6);
	for (size_t i = 0; i < 6; i++, c /= 62)
		if (text[start + n - 1 - i] != (uint8_t)digits[c % 62])
			return false;
	return true;
}

/* Three parts of base64url with a header in JSON (RFC 7515): "eyJ" is the begin of {" there. */
static bool jwt(const uint8_t *text, size_t len, size_t at, size_t *length)
{
	size_t dots = 0, part = 0;

	(void)len;
	for (size_t i = 0; i < *length; i++) {
		if (text[at + i] != '.') {
			part++;
			continue;
		}
		if (part < 10)
			return false;
		dots++;
		part = 0;
		if (dots == 1 && (*length - i < 4 || memcmp(text + at + i + 1, "ey", 2) != 0))
			return false;
	}
	return dots == 2 && part >= 10;
}

/* A frame and base64 behind it (RFC 7468), or PuTTY's. */
static bool private_key(const uint8_t *text, size_t len, size_t at, size_t *length)
{
	static const char frame[] = "PRIVATE KEY";
	size_t n = len - at < 96 ? len - at : 96, end;
	const uint8_t *p = memmem(text + at, n, frame, strlen(frame));

	if (!p || memchr(text + at, '\n', (size_t)(p - (text + at))))
		return false;
	end = (size_t)(p - text) + strlen(frame);
	while (end < len && (text[end] == '-' || text[end] == ' ' || (text[end] >= 'A' && text[end] <= 'Z')))
		end++;
	*length = end - at;
	/* a mention of it in prose or code has no key behind it, in lines or in the escapes of a string */
	for (n = 0; end < len && n < 40; end++) {
		uint8_t c = text[end];

		if ((c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || c == '+' || c == '/')
			n++;
		else if (!strchr("\r\n \t\\\"',=", c) || !c)
			break;
	}
	return n >= 40;
}

/* scheme://user:password@host */
static bool connection(const uint8_t *text, size_t len, size_t at, size_t *length)
{
	const uint8_t *scheme = memmem(text + at, *length, "://", 3), *colon, *host;
	size_t rest;

	(void)len;
	if (!scheme)
		return false;
	rest = *length - (size_t)(scheme + 3 - (text + at));
	host = memchr(scheme + 3, '@', rest);
	colon = host ? memchr(scheme + 3, ':', (size_t)(host - scheme - 3)) : NULL;
	/* ${PASSWORD}, <password>, %s and the like are places for one */
	if (!colon || host - colon < 4 || strchr("$<%{*[", colon[1]) ||
	    memmem(colon, (size_t)(host - colon), "password", 8))
		return false;
	*length = (size_t)(host - text) - at;
	return true;
}

/* An AWS key id alone is no secret, but never comes alone; the examples of the manual are none. */
static bool aws_key(const uint8_t *text, size_t len, size_t at, size_t *length)
{
	(void)len;
	return !memmem(text + at, *length, "EXAMPLE", 7);
}

/* ---- the rows
 * ------------------------------------------------------------------------------------------------------------- */

#define BASE62 "0-9A-Za-z"
#define URL64 "0-9A-Za-z_-"
#define HEX "0-9a-f"
#define UPPER "0-9A-Z"
#define URI "0-9A-Za-z._~:/?#[]@!$&'()*+,;=%{}<>-"

const struct scan_rule scan_rules[] = {
	{"cotter-token", "a capability token of cotter", "cot1_", URL64, 60, 1400, 4.0, NULL},
	{"age-secret-key", "an age identity", "AGE-SECRET-KEY-1", UPPER, 58, 58, 3.5, NULL},
	{"age-plugin-identity", "an age plug-in's identity", "AGE-PLUGIN-", "0-9A-Z-", 20, 400, 3.5, NULL},
	{"private-key", "a private key", "-----BEGIN ", "A-Z ", 4, 60, 0, private_key},
	{"putty-key", "a PuTTY private key", "PuTTY-User-Key-File-", "23", 1, 1, 0, NULL},
	{"jwt", "a JSON Web Token", "eyJ", "0-9A-Za-z_.=-", 40, 8192, 3.5, jwt},
	{"github-token", "a GitHub token", "ghp_", BASE62, 36, 36, 3.0, base62_crc},
	{"github-oauth", "a GitHub OAuth token", "gho_", BASE62, 36, 36, 3.0, base62_crc},
	{"github-user-token", "a GitHub user-to-server token", "ghu_", BASE62, 36, 36, 3.0, base62_crc},
	{"github-app-token", "a GitHub server-to-server token", "ghs_", BASE62, 36, 36, 3.0, base62_crc},
	{"github-refresh-token", "a GitHub refresh token", "ghr_", BASE62, 36, 76, 3.0, NULL},
	{"github-pat", "a GitHub fine-grained token", "github_pat_", "0-9A-Za-z_", 82, 82, 3.5, NULL},
	{"gitlab-token", "a GitLab personal access token", "glpat-", "0-9A-Za-z_.-", 20, 300, 3.0, NULL},
	{"gitlab-deploy-token", "a GitLab deploy token", "gldt-", "0-9A-Za-z_.-", 20, 300, 3.0, NULL},
	{"gitlab-runner-token", "a GitLab runner token", "glrt-", "0-9A-Za-z_.-", 20, 300, 3.0, NULL},
	{"gitlab-job-token", "a GitLab CI job token", "glcbt-", "0-9A-Za-z_.-", 20, 300, 3.0, NULL},
	{"gitlab-trigger-token", "a GitLab trigger token", "glptt-", "0-9A-Za-z_.-", 20, 300, 3.0, NULL},
	{"gitlab-agent-token", "a GitLab agent token", "glagent-", "0-9A-Za-z_.-", 20, 300, 3.0, NULL},
	{"npm-token", "an npm token", "npm_", BASE62, 36, 36, 3.0, base62_crc},
	{"pypi-token", "a PyPI token", "pypi-AgEIcHlwaS5vcmc", URL64, 50, 1000, 3.5, NULL},
	{"crates-token", "a crates.io token", "cio", BASE62, 32, 32, 3.7, NULL},
	{"rubygems-token", "a RubyGems token", "rubygems_", HEX, 48, 48, 3.0, NULL},
	{"dockerhub-token", "a Docker Hub token", "dckr_pat_", URL64, 27, 40, 3.0, NULL},
	{"aws-key-id", "an AWS access key id", "AKIA", UPPER, 16, 16, 2.5, aws_key},
	{"aws-session-key-id", "an AWS temporary key id", "ASIA", UPPER, 16, 16, 3.0, aws_key},
	{"google-api-key", "a Google API key", "AIza", URL64, 35, 35, 3.5, NULL},
	{"google-oauth-secret", "a Google OAuth client secret", "GOCSPX-", URL64, 28, 28, 3.0, NULL},
	{"google-oauth-token", "a Google OAuth token", "ya29.", URL64, 40, 1000, 3.5, NULL},
	{"slack-bot-token", "a Slack bot token", "xoxb-", "0-9A-Za-z-", 40, 80, 3.0, NULL},
	{"slack-user-token", "a Slack user token", "xoxp-", "0-9A-Za-z-", 40, 90, 3.0, NULL},
	{"slack-app-token", "a Slack app token", "xapp-", "0-9A-Za-z-", 50, 120, 3.0, NULL},
	{"slack-webhook", "a Slack webhook", "https://hooks.slack.com/services/", "0-9A-Za-z/", 40, 60, 3.0, NULL},
	{"stripe-key", "a Stripe secret key", "sk_live_", BASE62, 24, 110, 3.0, NULL},
	{"stripe-restricted-key", "a Stripe restricted key", "rk_live_", BASE62, 24, 110, 3.0, NULL},
	{"twilio-key", "a Twilio API key", "SK", HEX, 32, 32, 3.3, NULL},
	{"sendgrid-key", "a SendGrid key", "SG.", "0-9A-Za-z_.-", 66, 66, 4.0, NULL},
	{"anthropic-key", "an Anthropic key", "sk-ant-", URL64, 80, 130, 3.5, NULL},
	{"openai-key", "an OpenAI project key", "sk-proj-", URL64, 40, 200, 3.5, NULL},
	{"huggingface-token", "a Hugging Face token", "hf_", BASE62, 34, 40, 3.5, NULL},
	{"digitalocean-token", "a DigitalOcean token", "dop_v1_", HEX, 64, 64, 3.0, NULL},
	{"vault-token", "a Vault service token", "hvs.", URL64, 90, 400, 3.5, NULL},
	{"vault-batch-token", "a Vault batch token", "hvb.", URL64, 130, 400, 3.5, NULL},
	{"terraform-token", "a Terraform Cloud token", ".atlasv1.", URL64, 60, 80, 3.5, NULL},
	{"grafana-token", "a Grafana service account token", "glsa_", "0-9A-Za-z_", 41, 41, 3.0, NULL},
	{"shopify-token", "a Shopify token", "shpat_", HEX, 32, 32, 2.5, NULL},
	{"telegram-token", "a Telegram bot token", "bot_token=", "0-9A-Za-z:_-", 44, 48, 3.5, NULL},
	{"azure-storage-key", "an Azure storage key", "AccountKey=", "0-9A-Za-z+/=", 88, 88, 4.0, NULL},
	{"azure-sas", "an Azure shared access key", "SharedAccessKey=", "0-9A-Za-z+/=", 43, 44, 3.5, NULL},
	{"postgres-url", "a PostgreSQL URL with a password", "postgres://", URI, 5, 512, 0, connection},
	{"postgresql-url", "a PostgreSQL URL with a password", "postgresql://", URI, 5, 512, 0, connection},
	{"mysql-url", "a MySQL URL with a password", "mysql://", URI, 5, 512, 0, connection},
	{"mongodb-url", "a MongoDB URL with a password", "mongodb://", URI, 5, 512, 0, connection},
	{"mongodb-srv-url", "a MongoDB URL with a password", "mongodb+srv://", URI, 5, 512, 0, connection},
	{"redis-url", "a Redis URL with a password", "redis://", URI, 3, 512, 0, connection},
	{"rediss-url", "a Redis URL with a password", "rediss://", URI, 3, 512, 0, connection},
	{"amqp-url", "an AMQP URL with a password", "amqp://", URI, 5, 512, 0, connection},
};
const size_t n_scan_rules = sizeof(scan_rules) / sizeof(scan_rules[0]);

int rules_make(struct match *m, struct err *err)
{
	int r = 0;

	for (size_t i = 0; r == 0 && i < n_scan_rules; i++)
		r = match_add(m, scan_rules[i].begin, strlen(scan_rules[i].begin), (uint32_t)i, 0, err);
	return r == 0 ? match_build(m, err) : r;
}

/* A set as between the brackets of a regular expression. */
static bool in_charset(const char *set, uint8_t c)
{
	for (; *set; set++) {
		if (set[1] == '-' && set[2]) {
			if (c >= (uint8_t)set[0] && c <= (uint8_t)set[2])
				return true;
			set += 2;
		} else if (c == (uint8_t)*set) {
			return true;
		}
	}
	return false;
}

static double entropy(const uint8_t *p, size_t len)
{
	size_t count[256] = {0};
	double bits = 0;

	for (size_t i = 0; i < len; i++)
		count[p[i]]++;
	for (size_t i = 0; i < 256; i++)
		if (count[i])
			bits -= (double)count[i] / (double)len * log2((double)count[i] / (double)len);
	return bits;
}

static bool is_word(uint8_t c)
{
	return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || c == '_';
}

bool rule_holds(const struct scan_rule *rule, const uint8_t *text, size_t len, size_t at, size_t *ret_len)
{
	size_t begin = strlen(rule->begin), n = 0;

	/* the middle of something else */
	if (at && is_word((uint8_t)rule->begin[0]) && is_word(text[at - 1]))
		return false;
	while (at + begin + n < len && n <= rule->max && in_charset(rule->charset, text[at + begin + n]))
		n++;
	if (n < rule->min || n > rule->max || (rule->entropy > 0 && entropy(text + at + begin, n) < rule->entropy))
		return false;
	*ret_len = begin + n;
	return !rule->check || rule->check(text, len, at, ret_len);
}
