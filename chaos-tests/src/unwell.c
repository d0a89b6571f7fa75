// A disk and a clock that are not well, preloaded.
//
// Holds back what a process writes to its files, for as long as the file
// SLOW_DISK says (microseconds): a process that is killed meanwhile leaves
// nothing of it. Tells that the clock's ticks are as long as the file SLEW says,
// and that it is later than it is by what the file AHEAD says (seconds).
//
// Kills the process at the call that the file KILL_AT says, counted from when
// that file appears, of those that change something below the directory DATA;
// the file is gone then.

#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/timex.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

static unsigned long said(const char *name)
{
	const char *path = getenv(name);
	char text[32] = {0};
	int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;

	if (fd < 0)
		return 0;
	if (read(fd, text, sizeof(text) - 1) < 0)
		text[0] = 0;
	close(fd);
	return strtoul(text, NULL, 10);
}

static void count(void)
{
	static atomic_ulong calls;
	unsigned long at = said("KILL_AT");

	if (!at) {
		calls = 0;
		return;
	}
	if (++calls < at)
		return;
	syscall(SYS_unlinkat, AT_FDCWD, getenv("KILL_AT"), 0);
	syscall(SYS_kill, getpid(), SIGKILL);
}

static void changes(const char *path)
{
	const char *data = getenv("DATA");

	if (data && !strncmp(path, data, strlen(data)))
		count();
}

static void changes_fd(int fd)
{
	char link[32], path[512] = {0};

	if (!getenv("DATA"))
		return;
	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	if (syscall(SYS_readlinkat, AT_FDCWD, link, path, sizeof(path) - 1) > 0)
		changes(path);
}

static void hold_back(void)
{
	unsigned long us = said("SLOW_DISK");

	if (us)
		usleep(us);
}

int adjtimex(struct timex *timex)
{
	long result = syscall(SYS_adjtimex, timex);
	unsigned long tick = said("SLEW");

	if (tick)
		timex->tick = tick;
	return result;
}

int clock_gettime(clockid_t clock, struct timespec *at)
{
	static int (*real)(clockid_t, struct timespec *);
	int result;

	if (!real)
		real = dlsym(RTLD_NEXT, "clock_gettime");
	result = real(clock, at);
	if (clock == CLOCK_REALTIME && result == 0)
		at->tv_sec += said("AHEAD");
	return result;
}

ssize_t pwrite64(int fd, const void *from, size_t len, off64_t at)
{
	hold_back();
	changes_fd(fd);
	return syscall(SYS_pwrite64, fd, from, len, at);
}

ssize_t pwrite(int fd, const void *from, size_t len, off_t at)
{
	return pwrite64(fd, from, len, at);
}

int fdatasync(int fd)
{
	hold_back();
	changes_fd(fd);
	return syscall(SYS_fdatasync, fd);
}

int fsync(int fd)
{
	changes_fd(fd);
	return syscall(SYS_fsync, fd);
}

ssize_t write(int fd, const void *from, size_t len)
{
	changes_fd(fd);
	return syscall(SYS_write, fd, from, len);
}

int ftruncate64(int fd, off64_t len)
{
	changes_fd(fd);
	return syscall(SYS_ftruncate, fd, len);
}

int rename(const char *from, const char *to)
{
	changes(to);
	return syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0);
}

int unlink(const char *path)
{
	changes(path);
	return syscall(SYS_unlinkat, AT_FDCWD, path, 0);
}

int rmdir(const char *path)
{
	changes(path);
	return syscall(SYS_unlinkat, AT_FDCWD, path, AT_REMOVEDIR);
}

int unlinkat(int dir, const char *path, int flags)
{
	changes_fd(dir);
	return syscall(SYS_unlinkat, dir, path, flags);
}

int mkdir(const char *path, mode_t mode)
{
	changes(path);
	return syscall(SYS_mkdirat, AT_FDCWD, path, mode);
}
