#include "tools/agent_dir.h"

#include "common/cleanup.h"

#include <fcntl.h>
#include <unistd.h>

void agent_dir_remove(const char *dir, bool pkcs11, bool ssh)
{
	CLEANUP(cleanup_close) int fd = open(dir, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

	if (fd < 0)
		return;
	if (pkcs11)
		unlinkat(fd, AGENT_PKCS11_SOCKET, 0);
	if (ssh)
		unlinkat(fd, AGENT_SSH_SOCKET, 0);
	rmdir(dir);
}
