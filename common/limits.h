#pragma once
/* Every hard limit on bytes, counts and times that the outside world controls. */

/* names */
#define LIMIT_PATH_LEN 512u	   /* a secret's path, bytes */
#define LIMIT_COMPONENT_LEN 128u   /* one component of it */
#define LIMIT_NAME_LEN 64u	   /* provider, policy, key label */
#define LIMIT_URI_LEN 512u	   /* RFC 7512 URI, TCTI string, file path of a key */
#define LIMIT_FILE_PATH_LEN 4096u  /* a path in the configuration */

/* sealed files (C2SP age) */
#define LIMIT_AGE_HEADER 65536u	   /* bytes up to the end of the MAC line */
#define LIMIT_AGE_STANZAS 32u
#define LIMIT_AGE_ARGS 8u	   /* arguments of a stanza, its type included */
#define LIMIT_AGE_BODY 16384u	   /* decoded body of one stanza */
#define LIMIT_AGE_HARDWARE_OPS 2u  /* hardware operations one file may cost */
#define LIMIT_AGE_SCRYPT_LOG_N 22u /* CLI recovery only; the broker refuses scrypt */
#define LIMIT_AGE_PREAMBLE 1024u   /* white space around armor */
#define LIMIT_RECIPIENTS 16u	   /* of one seal */
#define LIMIT_IDENTITIES 64u	   /* in an identity file */

/* secrets and the store */
#define LIMIT_SECRET_LEN 65536u	   /* plaintext of one version */
#define LIMIT_SEALED_LEN 196608u   /* one sealed version: header, payload, many recipients */
#define LIMIT_VERSIONS 10u	   /* kept per secret, as in Vault's KV v2 default */
#define LIMIT_PATCHES 16u	   /* of secrets at once: each keeps its text in locked memory */
#define LIMIT_PATCHES_PER_UID 4u
#define LIMIT_MAX_VERSIONS 100u   /* that somebody may ask for */
#define LIMIT_VERSION_NUMBER 1000000000000000ll /* that is carried here */
#define LIMIT_VERSIONS_AT_ONCE 100u /* deleted or destroyed by one request */
#define LIMIT_CUSTOM 8192u	   /* custom metadata of a secret, JSON */
#define LIMIT_CUSTOM_KEYS 64u
#define LIMIT_CUSTOM_KEY 128u
#define LIMIT_CUSTOM_VALUE 512u
#define LIMIT_READ 64u		   /* secrets that one request reads */
#define LIMIT_READ_LEN 524288u
#define LIMIT_LIST 100000u	   /* keys in one listing */

/* engines */
#define LIMIT_ENGINES 16u
#define LIMIT_ENGINE_ROLES 64u
#define LIMIT_PARAMETERS 16u
#define LIMIT_PARAMETER_LEN 4096u
#define LIMIT_ENGINE_RUNS 16u	   /* programs at once */
#define LIMIT_ENGINE_RUNS_PER_UID 4u /* that jobs of one uid wait for */
#define LIMIT_ENGINE_MS 20000u
#define LIMIT_LEASES 8192u
#define LIMIT_LEASES_PER_UID 1024u
#define LIMIT_LEASE_MS 2764800000ull

/* programs of the operator */
#define LIMIT_PROGRAM_OUTPUT LIMIT_SECRET_LEN
#define LIMIT_PROGRAM_MS 60000u

/* masking */
#define LIMIT_MASK_FILE (1u << 20) /* a file of values */
#define LIMIT_MASK_SECRETS 256u

/* cotter run */
#define LIMIT_RUN_DELIVERIES 64u
#define LIMIT_RUN_NAME 128u	   /* of a variable */
#define LIMIT_REFRESH_S 86400u
#define LIMIT_TEMPLATE 262144u
#define LIMIT_PROJECT 65536u	   /* bytes of a project file */

/* carrying */
#define LIMIT_MANIFEST (64u << 20)
#define LIMIT_MANIFEST_LINES 100000u
#define LIMIT_MANIFEST_SIGNATURE 1024u

/* capability tokens */
#define LIMIT_TOKEN_LEN 1024u	   /* decoded */
#define LIMIT_TOKEN_TEXT 1400u	   /* prefix and base64url */
#define LIMIT_CAVEATS 16u
#define LIMIT_CAVEAT_LEN 128u
#define LIMIT_TOKENS 65536u	   /* live rows */
#define LIMIT_TOKENS_PER_UID 16384u /* that no operator made */
#define LIMIT_JOBS 16384u
#define LIMIT_JOBS_PER_UID 4096u    /* the same */
#define LIMIT_JOB_TOKENS 64u	   /* of one job */
#define LIMIT_RECEIVED 64u	   /* secrets that one job was given and that are known by name */
#define LIMIT_RECEIVED_BYTES (8u << 20) /* of all jobs, that this takes */
#define LIMIT_RECEIVED_LISTED (128u << 10) /* bytes of it in one listing of all jobs */
#define LIMIT_TOKEN_CHILDREN 64u   /* made with one token */
#define LIMIT_TOKEN_TTL_S 86400u
#define LIMIT_TOKEN_TTL_DEFAULT_S 3600u
#define LIMIT_TOKEN_MAX_TTL_S 2764800u /* with renewals */
#define LIMIT_DURATION_S 315360000u
#define LIMIT_TOKEN_POLICIES 8u
#define LIMIT_TOKEN_POLICY_TEXT 520u /* the names joined by commas */
#define LIMIT_TOKEN_META_TEXT 1024u  /* what was proven of its holder: name=value lines */
#define LIMIT_TOKEN_META_VALUE 255u
#define LIMIT_TOKEN_PATH_TEXT (LIMIT_PATH_LEN + 64u) /* of the request that made it */
#define LIMIT_WRAP_TTL_S 86400u	   /* of a wrapping token */
#define LIMIT_SECRET_IDS 4096u	   /* of AppRoles, that live */
#define LIMIT_WRAPPED 1024u	   /* answers that wait to be unwrapped */
#define LIMIT_WRAPPED_PER_UID 256u /* the same, for one uid's jobs */
#define LIMIT_WRAPPED_LEN 262144u
#define LIMIT_CGROUP_PATH 1024u

/* CI ID tokens (RFC 7519) */
#define LIMIT_JWT_LEN 16384u	   /* in its compact form */
#define LIMIT_JWT_HEADER 2048u
#define LIMIT_JWT_SIGNATURE 1024u  /* RSA-8192 */
#define LIMIT_JWT_LEEWAY_MS 600000u
#define LIMIT_JWT_LIFE_S 86400u	   /* from now to exp */
#define LIMIT_JWT_KID 64u	   /* bytes of a kid that are shown */
#define LIMIT_LOGIN_BODY 24576u
#define LIMIT_JWKS_LEN 65536u	   /* a pinned key set */
#define LIMIT_JWKS_KEYS 64u
#define LIMIT_REPLAYS 100000u	   /* ID tokens remembered until they expire */

/* HTTP */
#define LIMIT_HTTP_HEAD 8192u	   /* request line and headers */
#define LIMIT_HTTP_HEADERS 64u
#define LIMIT_HTTP_BODY 294912u	   /* a sealed version in base64, and its JSON */
#define LIMIT_JSON_DEPTH 32u
#define LIMIT_BACKLOG 1024	/* connections that wait to be accepted; a storm of them stands before everybody's, 28 us each */
#define LIMIT_CONNECTIONS 8192u
#define LIMIT_CONNECTIONS_PER_UID 4096u
#define LIMIT_OPERATOR_CONNECTIONS 32u	 /* places that jobs cannot take */
#define LIMIT_IN_BYTES (2u << 20)	 /* of the arena, for requests that are not complete */
#define LIMIT_IN_BYTES_PER_UID (1u << 20)
#define LIMIT_CALLS 512u		 /* requests that wait for hardware or people, each with its token in the arena */
#define LIMIT_CALLS_PER_JOB 256u	 /* of one job */
#define LIMIT_CALLS_BEYOND 16u		 /* of one job where those are used up */
#define LIMIT_CALLS_ALL 640u		 /* with what is beyond */
#define LIMIT_REQUEST_TIMEOUT_MS 5000 /* first byte to last byte of a request */
#define LIMIT_REPLY_TIMEOUT_MS 10000  /* a client that does not read */
#define LIMIT_IDLE_TIMEOUT_MS 300000

/* hardware */
#define LIMIT_CERTIFICATES 32768u  /* of one key: its own and the chain, DER */
#define LIMIT_BATCH 256u	   /* items of one request to transit */
#define LIMIT_WIRE_DATA 4096u	   /* payload of one keyd packet */
#define LIMIT_KEYS 64u		   /* keys one provider lists */
#define LIMIT_PROVIDERS 8u
#define LIMIT_PARALLEL 16u	   /* operations that one provider is at */
#define LIMIT_HARDWARE_QUEUE 4096u /* operations waiting for one provider */
#define LIMIT_HARDWARE_QUEUE_PER_ASKER 1024u /* of one job */
#define LIMIT_HARDWARE_TIMEOUT_MS 10000
#define LIMIT_PIN_LEN 255u

/* configuration and policy */
#define LIMIT_CONFIG_LEN 1048576u
#define LIMIT_CONFIG_ITEMS 1024u    /* of one mapping or list */
#define LIMIT_CONFIG_DEPTH 16u
#define LIMIT_POLICIES 256u
#define LIMIT_RULES 256u	   /* of one policy */
#define LIMIT_ROLES 1024u
#define LIMIT_ISSUERS 32u
#define LIMIT_SCOPES 1024u
#define LIMIT_ROTATIONS 256u
#define LIMIT_OVERDUE 100u	   /* secrets that the state tells by name */
#define LIMIT_MOUNTS 64u
#define LIMIT_OPERATORS 64u
#define LIMIT_KEY_RULES 256u
#define LIMIT_APPROVERS 16u	   /* of one rule; votes on one key of a job */
#define LIMIT_JOB_APPROVALS 32u	   /* keys of one job that await or have one */
#define LIMIT_APPROVAL_WAITING 512u /* requests that wait for approvals: each keeps its token in locked memory */
#define LIMIT_APPROVAL_WAITING_PER_UID 64u
#define LIMIT_APPROVAL_WAITING_PER_JOB 32u
#define LIMIT_APPROVALS_LISTED 200u
#define LIMIT_APPROVALS_LISTED_PER_UID 40u
#define LIMIT_RATES_PER_UID 256u   /* shares of one uid's jobs that are not paid back */
#define LIMIT_APPROVAL_WAIT_MS 3600000u
#define LIMIT_BOUND_CLAIMS 32u	   /* of one role */
#define LIMIT_BOUND_VALUES 64u	   /* of one claim */
#define LIMIT_MAPPINGS 8u
#define LIMIT_BOUND_LEN 1024u	   /* bytes of a bound value */

/* helpers of other tools, and of systemd */
#define LIMIT_UNIT_LEN 128u	   /* of a systemd unit's name */
#define LIMIT_UNITS 256u
#define LIMIT_UNIT_CREDENTIALS 64u
#define LIMIT_SYSTEMD_CREDENTIAL (1u << 20) /* what systemd takes; more is an error to it */
#define LIMIT_REFUSED_UNIT_MS 300000 /* a refusal that is not read: cut off, it would be taken for a value */
#define LIMIT_HELPER_INPUT 65536u  /* what a tool asks with */
#define LIMIT_HELPER_ARGS 16u
#define LIMIT_HELPER_ID 64u	   /* podman's name for a secret */

/* certificates */
#define LIMIT_CERT_NAME 253u	   /* a DNS name, a principal */
#define LIMIT_CERT_NAMES 64u	   /* of one certificate */
#define LIMIT_CERT_EXTENSIONS 16u
#define LIMIT_CERT_TTL_MS (90ull * 86400000)
#define LIMIT_CSR 16384u	   /* PEM */
#define LIMIT_SSH_PRINCIPALS 4096u /* the list, as it is asked for */
#define LIMIT_SSH_KEY 8192u	   /* a line of an authorized_keys file */
#define LIMIT_CERTIFICATE 8192u	   /* DER, or an SSH certificate */
#define LIMIT_REVOKED 4096u	   /* in one CRL */

/* audit */
#define LIMIT_AUDIT_RECORD 1024u
#define LIMIT_AUDIT_SEGMENT (64u << 20)
#define LIMIT_AUDIT_PREALLOC (1u << 20)
#define LIMIT_AUDIT_RESERVE (64u << 10) /* kept for denials on a full disk */
#define LIMIT_AUDIT_WAIT_MS 2000
#define LIMIT_REFUSALS 100u	   /* records at once for what one uid in one cgroup was refused; twice as many for the uid */
#define LIMIT_REFUSAL_MS 1000u	   /* and then one in that time: the others are counted */
#define LIMIT_REFUSALS_ALL 2000u   /* the same for all of them together */
#define LIMIT_REFUSAL_ALL_MS 100u

/* memory */
#define LIMIT_ARENA_BROKER (4u << 20) /* half of it for requests that are not complete, 1.5 MiB for calls that wait */
#define LIMIT_ARENA_TOOL (4u << 20)
#define LIMIT_ARENA_KEYD (512u << 10)
#define LIMIT_ARENA_AGENT (512u << 10)
