// Holds back what a process writes to its files, for as long as a file says
// (microseconds): a disk that is slow to take a write, so that a process killed
// meanwhile leaves nothing of it. Preloaded.

#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

static void hold_back(void)
{
	const char *path = getenv("SLOW_DISK");
	char text[32] = {0};
	int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;

	if (fd < 0)
		return;
	if (read(fd, text, sizeof(text) - 1) > 0)
		usleep(strtoul(text, NULL, 10));
	close(fd);
}

ssize_t pwrite64(int fd, const void *from, size_t len, off64_t at)
{
	hold_back();
	return syscall(SYS_pwrite64, fd, from, len, at);
}

ssize_t pwrite(int fd, const void *from, size_t len, off_t at)
{
	return pwrite64(fd, from, len, at);
}

int fdatasync(int fd)
{
	hold_back();
	return syscall(SYS_fdatasync, fd);
}
