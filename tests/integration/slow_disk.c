/* A disk whose flushes take longer, for LD_PRELOAD: by as many milliseconds as the file SLOW_DISK says now, an int. */
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static const volatile int *more_ms;

/* At once: cotterd opens no foreign file later. */
__attribute__((constructor)) static void begin(void)
{
	const char *path = getenv("SLOW_DISK");
	int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
	void *p = fd < 0 ? MAP_FAILED : mmap(NULL, sizeof(*more_ms), PROT_READ, MAP_SHARED, fd, 0);

	if (fd >= 0)
		close(fd);
	if (p == MAP_FAILED)
		abort();
	more_ms = p;
}

int fdatasync(int fd)
{
	const int ms = *more_ms;
	const struct timespec more = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000L};
	int r = (int)syscall(SYS_fdatasync, fd);

	nanosleep(&more, NULL);
	return r;
}
