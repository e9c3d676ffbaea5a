#pragma once
/* THE array of key providers. A new one: its directory and one row. */
#include "common/provider.h"

/* By the scheme of a provider URI; NULL for an unknown one. */
const struct provider_ops *providers_find(const char *uri);
