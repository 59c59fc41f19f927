/* Makes one system call fail: the n-th of those that may fail with a given error (see calls.py).

   Loaded by LD_PRELOAD, so that it sees every call that Python makes through the C library, also those of
   io.open, of subprocess and of threads. Until it is armed it changes nothing. */

#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

/* -- which call fails ------------------------------------------------------------------------------- */

enum { HERE, ELSEWHERE }; /* calls of the thread that arms, or of all others */

static int error, others, lasting;
static long wanted, made;
static char failed[64];
static __thread int is_here;

void calls_arm(int which_error, long which, int in_others, int and_all_after)
{
	is_here = 1;
	error = which_error, wanted = which, others = in_others, lasting = and_all_after;
	made = 0;
	failed[0] = 0;
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
}

/* How many calls there were that might have failed. */
long calls_disarm(void)
{
	error = 0;
	return made;
}

/* The call that failed first; an empty text if none did. */
const char *calls_failed(void) { return failed; }

static int fails(const char *name, const int *errors)
{
	if (!error || is_here == others)
		return 0;
	for (; *errors != error; errors++)
		if (!*errors)
			return 0;
	long number = __atomic_fetch_add(&made, 1, __ATOMIC_SEQ_CST);
	if (number != wanted && !(lasting && number > wanted))
		return 0;
	if (number == wanted)
		strncpy(failed, name, sizeof failed - 1);
	errno = error;
	return 1;
}

/* What a call may fail with: open(2), stat(2), link(2) and so on; on NFS, and with quotas, too. */
#define DESCRIPTORS EMFILE, ENFILE, ENOMEM
#define ANY ENOMEM, EIO, ESTALE
#define FULL ENOSPC, EDQUOT, EROFS
static const int looks[] = {ANY, 0};
static const int opens[] = {DESCRIPTORS, EIO, ESTALE, 0};
static const int creates[] = {DESCRIPTORS, EIO, ESTALE, FULL, 0};
static const int changes[] = {ANY, FULL, 0};
static const int attributes[] = {ANY, EROFS, ENOSPC, EDQUOT, 0};
static const int removes[] = {ANY, EROFS, EDQUOT, ENOSPC, 0};
static const int reads[] = {ENOMEM, EIO, ESTALE, 0};
static const int writes[] = {ENOMEM, EIO, ESTALE, ENOSPC, EDQUOT, 0};
static const int descriptors[] = {DESCRIPTORS, 0};
static const int watches[] = {DESCRIPTORS, ENOSPC, 0};
static const int starts[] = {EAGAIN, ENOMEM, 0};

/* -- the calls -------------------------------------------------------------------------------------- */

#define REAL(type, name, ...) \
	static type (*real)(__VA_ARGS__); \
	if (!real) \
		real = (type(*)(__VA_ARGS__))dlsym(RTLD_NEXT, #name)

#define CALL(type, bad, errors, name, parameters, arguments) \
	type name parameters \
	{ \
		static type(*real) parameters; \
		if (!real) \
			real = (type(*) parameters)dlsym(RTLD_NEXT, #name); \
		if (fails(#name, errors)) \
			return bad; \
		return real arguments; \
	}

static const int *opening(int flags) { return flags & O_CREAT ? creates : opens; }

#define OPEN(name) \
	int name(const char *path, int flags, ...) \
	{ \
		REAL(int, name, const char *, int, ...); \
		va_list more; \
		va_start(more, flags); \
		mode_t mode = va_arg(more, mode_t); \
		va_end(more); \
		return fails(#name, opening(flags)) ? -1 : real(path, flags, mode); \
	}
OPEN(open)
OPEN(open64)

#define OPENAT(name) \
	int name(int directory, const char *path, int flags, ...) \
	{ \
		REAL(int, name, int, const char *, int, ...); \
		va_list more; \
		va_start(more, flags); \
		mode_t mode = va_arg(more, mode_t); \
		va_end(more); \
		return fails(#name, opening(flags)) ? -1 : real(directory, path, flags, mode); \
	}
OPENAT(openat)
OPENAT(openat64)

CALL(DIR *, NULL, opens, opendir, (const char *a), (a))
CALL(DIR *, NULL, looks, fdopendir, (int a), (a))
CALL(struct dirent *, NULL, reads, readdir, (DIR * a), (a))
CALL(struct dirent64 *, NULL, reads, readdir64, (DIR * a), (a))

CALL(int, -1, looks, stat, (const char *a, struct stat *b), (a, b))
CALL(int, -1, looks, stat64, (const char *a, struct stat64 *b), (a, b))
CALL(int, -1, looks, lstat, (const char *a, struct stat *b), (a, b))
CALL(int, -1, looks, lstat64, (const char *a, struct stat64 *b), (a, b))
CALL(int, -1, looks, fstat, (int a, struct stat *b), (a, b))
CALL(int, -1, looks, fstat64, (int a, struct stat64 *b), (a, b))
CALL(int, -1, looks, fstatat, (int a, const char *b, struct stat *c, int d), (a, b, c, d))
CALL(int, -1, looks, fstatat64, (int a, const char *b, struct stat64 *c, int d), (a, b, c, d))
CALL(int, -1, looks, statvfs, (const char *a, struct statvfs *b), (a, b))
CALL(int, -1, looks, statvfs64, (const char *a, struct statvfs64 *b), (a, b))
CALL(int, -1, looks, fstatvfs, (int a, struct statvfs *b), (a, b))
CALL(int, -1, looks, fstatvfs64, (int a, struct statvfs64 *b), (a, b))
CALL(int, -1, looks, access, (const char *a, int b), (a, b))
CALL(int, -1, looks, faccessat, (int a, const char *b, int c, int d), (a, b, c, d))
CALL(ssize_t, -1, looks, readlink, (const char *a, char *b, size_t c), (a, b, c))
CALL(ssize_t, -1, looks, readlinkat, (int a, const char *b, char *c, size_t d), (a, b, c, d))
CALL(ssize_t, -1, looks, getxattr, (const char *a, const char *b, void *c, size_t d), (a, b, c, d))
CALL(ssize_t, -1, looks, lgetxattr, (const char *a, const char *b, void *c, size_t d), (a, b, c, d))
CALL(ssize_t, -1, looks, fgetxattr, (int a, const char *b, void *c, size_t d), (a, b, c, d))

CALL(ssize_t, -1, reads, read, (int a, void *b, size_t c), (a, b, c))
CALL(ssize_t, -1, reads, readv, (int a, const struct iovec *b, int c), (a, b, c))
CALL(ssize_t, -1, reads, pread, (int a, void *b, size_t c, off_t d), (a, b, c, d))
CALL(ssize_t, -1, reads, pread64, (int a, void *b, size_t c, off64_t d), (a, b, c, d))
CALL(ssize_t, -1, writes, write, (int a, const void *b, size_t c), (a, b, c))
CALL(ssize_t, -1, writes, pwrite, (int a, const void *b, size_t c, off_t d), (a, b, c, d))
CALL(ssize_t, -1, writes, pwrite64, (int a, const void *b, size_t c, off64_t d), (a, b, c, d))
CALL(int, -1, writes, fsync, (int a), (a))
CALL(int, -1, writes, fdatasync, (int a), (a))
CALL(int, -1, changes, ftruncate, (int a, off_t b), (a, b))
CALL(int, -1, changes, ftruncate64, (int a, off64_t b), (a, b))

/* What it is told of was written, or not, long before: the descriptor is gone all the same. */
int close(int descriptor)
{
	static const int errors[] = {EIO, ENOSPC, EDQUOT, 0};
	REAL(int, close, int);
	int refused = fails("close", errors);
	int result = real(descriptor);
	if (refused)
		errno = error;
	return refused ? -1 : result;
}

CALL(int, -1, changes, link, (const char *a, const char *b), (a, b))

/* No hard link can be made of any file that was judged, as where fs.protected_hardlinks is set. */
static int links_are_refused;

void calls_refuse_links(int are_refused) { links_are_refused = are_refused; }

int linkat(int a, const char *b, int c, const char *d, int e)
{
	REAL(int, linkat, int, const char *, int, const char *, int);
	if (fails("linkat", changes))
		return -1;
	if (links_are_refused && strncmp(b, "/proc/self/fd/", 14) == 0) {
		errno = EPERM;
		return -1;
	}
	return real(a, b, c, d, e);
}

CALL(int, -1, changes, symlink, (const char *a, const char *b), (a, b))
CALL(int, -1, changes, symlinkat, (const char *a, int b, const char *c), (a, b, c))
CALL(int, -1, changes, rename, (const char *a, const char *b), (a, b))
CALL(int, -1, changes, renameat, (int a, const char *b, int c, const char *d), (a, b, c, d))
CALL(int, -1, changes, mkdir, (const char *a, mode_t b), (a, b))
CALL(int, -1, changes, mkdirat, (int a, const char *b, mode_t c), (a, b, c))
CALL(int, -1, removes, unlink, (const char *a), (a))
CALL(int, -1, removes, unlinkat, (int a, const char *b, int c), (a, b, c))
CALL(int, -1, removes, rmdir, (const char *a), (a))
CALL(int, -1, attributes, chmod, (const char *a, mode_t b), (a, b))
CALL(int, -1, attributes, fchmod, (int a, mode_t b), (a, b))
CALL(int, -1, attributes, fchmodat, (int a, const char *b, mode_t c, int d), (a, b, c, d))
CALL(int, -1, attributes, fchown, (int a, uid_t b, gid_t c), (a, b, c))
CALL(int, -1, attributes, futimens, (int a, const struct timespec b[2]), (a, b))
CALL(int, -1, attributes, utimensat, (int a, const char *b, const struct timespec c[2], int d), (a, b, c, d))
CALL(int, -1, attributes, fsetxattr, (int a, const char *b, const void *c, size_t d, int e), (a, b, c, d, e))
CALL(int, -1, attributes, fremovexattr, (int a, const char *b), (a, b))

CALL(int, -1, descriptors, pipe, (int a[2]), (a))
CALL(int, -1, descriptors, pipe2, (int a[2], int b), (a, b))
CALL(int, -1, descriptors, socket, (int a, int b, int c), (a, b, c))
CALL(int, -1, descriptors, dup, (int a), (a))
CALL(int, -1, descriptors, epoll_create1, (int a), (a))
CALL(int, -1, descriptors, inotify_init, (void), ())
CALL(int, -1, descriptors, inotify_init1, (int a), (a))
CALL(int, -1, watches, inotify_add_watch, (int a, const char *b, uint32_t c), (a, b, c))

/* By which Python has pidfd_open(2). */
long syscall(long number, ...)
{
	REAL(long, syscall, long, ...);
	long a[6];
	va_list more;
	va_start(more, number);
	for (int i = 0; i < 6; i++)
		a[i] = va_arg(more, long);
	va_end(more);
	if (number == SYS_pidfd_open && fails("pidfd_open", descriptors))
		return -1;
	return real(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}

/* The child, which has a copy of all this, goes on to exec: none of its calls is meant. */
pid_t fork(void)
{
	REAL(pid_t, fork, void);
	pid_t child = fails("fork", starts) ? -1 : real();
	if (child == 0)
		error = 0;
	return child;
}

/* In the place of vfork, which no function can stand before: what it returns twice would have no frame. */
pid_t vfork(void) { return fork(); }

int pthread_create(pthread_t *a, const pthread_attr_t *b, void *(*c)(void *), void *d)
{
	static const int errors[] = {EAGAIN, 0};
	REAL(int, pthread_create, pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
	return fails("pthread_create", errors) ? EAGAIN : real(a, b, c, d);
}
