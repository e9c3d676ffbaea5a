#pragma once
/* Where the agent's sockets are. */
#include <stdbool.h>

#define AGENT_PKCS11_SOCKET "pkcs11.sock"
#define AGENT_SSH_SOCKET "ssh.sock"

/* Removes the sockets that are named and their directory, if that is one, no link to another, and empty. */
void agent_dir_remove(const char *dir, bool pkcs11, bool ssh);
