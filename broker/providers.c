#include "broker/providers.h"

#include "pkcs11/pkcs11_provider.h"
#include "tpm/tpm_provider.h"

#include <string.h>

static const struct provider_ops *const providers[] = {
	&pkcs11_provider_ops,
	&tpm_provider_ops,
};

const struct provider_ops *providers_find(const char *uri)
{
	for (size_t i = 0; i < sizeof(providers) / sizeof(providers[0]); i++)
		if (strncmp(uri, providers[i]->scheme, strlen(providers[i]->scheme)) == 0)
			return providers[i];
	return NULL;
}
