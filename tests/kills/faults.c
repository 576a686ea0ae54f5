/* Preloaded into a process: counts what it does to the files below a folder, and at one of these operations kills the process or lets it fail.
   Counted, in all threads: opens that make or empty a file, writes, truncations, syncs, renames, links, removals, folders made.
   Nothing happens before faults_arm(). A process that is killed in a write has written half of it. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum fault { OFF, LOG, KILL, FULL, BROKEN };  /* FULL: the disk is full from operation `at` on; BROKEN: that one operation fails with EIO */
enum verdict { PASS, HALF, FAIL };
static enum fault fault;
static int at, counted, log_fd = -1;
static char folder[PATH_MAX];

void faults_arm(const char *below, int what, int operation, int log) {
  snprintf(folder, sizeof folder, "%s/", below);
  fault = what; at = operation; log_fd = log; counted = 0;
}

static const char *of_fd(int fd, char *buffer) {
  char link[64];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t n = readlink(link, buffer, PATH_MAX - 1);
  buffer[n < 0 ? 0 : n] = 0;
  return buffer;
}

static const char *of_path(int dir, const char *path, char *buffer) {
  char base[PATH_MAX];
  if (*path == '/') return path;
  if (dir == AT_FDCWD) { if (!getcwd(base, sizeof base)) return path; } else of_fd(dir, base);
  if (snprintf(buffer, PATH_MAX, "%s/%s", base, path) >= PATH_MAX) return path;
  return buffer;
}

static void die(void) { syscall(SYS_kill, getpid(), SIGKILL); for (;;) pause(); }

static void note(int n, const char *operation, const char *path) {
  char line[PATH_MAX + 64];
  int size = snprintf(line, sizeof line, "%d\t%s\t%s\n", n, operation, path);
  if (syscall(SYS_write, log_fd, line, size) != size) die();
}

/* HALF: half of a write is to be done, as the last thing (KILL) or for now (FULL). `takes`: whether the operation takes room on the disk. */
static enum verdict reached(const char *operation, const char *path, int takes) {
  if (fault == OFF || strncmp(path, folder, strlen(folder))) return PASS;
  int n = __sync_add_and_fetch(&counted, 1);
  if (fault == LOG) note(n, operation, path);
  if (fault == KILL && n == at) return HALF;
  if (fault == BROKEN && n == at) { errno = EIO; return FAIL; }
  if (fault == FULL && n >= at && takes) { errno = ENOSPC; return n == at ? HALF : FAIL; }
  return PASS;
}

#define REAL(name) static __typeof__(&name) real; if (!real) real = (__typeof__(real))dlsym(RTLD_NEXT, #name)
#define WHOLE(operation, path, takes, failed) do { \
    enum verdict v = fault == OFF ? PASS : reached(operation, path, takes); \
    if (v != PASS && fault == KILL) die(); \
    if (v != PASS) return failed; } while (0)

#define OPEN(name, DIR, ...) \
  int name(__VA_ARGS__ const char *path, int flags, ...) { \
    char buffer[PATH_MAX]; mode_t mode = 0; \
    if (flags & (O_CREAT | __O_TMPFILE)) { va_list more; va_start(more, flags); mode = va_arg(more, mode_t); va_end(more); } \
    if (flags & (O_CREAT | O_TRUNC)) WHOLE("open", of_path(DIR, path, buffer), 1, -1); \
    return syscall(SYS_openat, DIR, path, flags, mode); }
OPEN(open, AT_FDCWD)
OPEN(open64, AT_FDCWD)
OPEN(openat, dir, int dir,)
OPEN(openat64, dir, int dir,)
int creat(const char *path, mode_t mode) { return open(path, O_CREAT | O_WRONLY | O_TRUNC, mode); }

#define FOPEN(name) \
  FILE *name(const char *path, const char *mode) { \
    REAL(name); char buffer[PATH_MAX]; \
    if (strpbrk(mode, "wa")) WHOLE("open", of_path(AT_FDCWD, path, buffer), 1, NULL); \
    return real(path, mode); }
FOPEN(fopen)
FOPEN(fopen64)

/* Writes can be done by half. */
#define WRITE(name, SIZE, WRITE_HALF, WRITE_ALL, ...) \
  ssize_t name(__VA_ARGS__) { \
    REAL(name); char buffer[PATH_MAX]; \
    enum verdict v = fault == OFF ? PASS : reached("write", of_fd(fd, buffer), 1); \
    if (v == PASS) return WRITE_ALL; \
    ssize_t half = -1; \
    if (v == HALF && (SIZE) > 1) half = WRITE_HALF; \
    if (fault == KILL) die(); \
    if (half < 0) errno = fault == FULL ? ENOSPC : EIO; \
    return half; }
WRITE(write, n, real(fd, data, n / 2), real(fd, data, n), int fd, const void *data, size_t n)
WRITE(pwrite, n, real(fd, data, n / 2, place), real(fd, data, n, place), int fd, const void *data, size_t n, off_t place)
WRITE(pwrite64, n, real(fd, data, n / 2, place), real(fd, data, n, place), int fd, const void *data, size_t n, off64_t place)
WRITE(writev, n, real(fd, parts, n / 2), real(fd, parts, n), int fd, const struct iovec *parts, int n)
WRITE(pwritev, n, real(fd, parts, n / 2, place), real(fd, parts, n, place), int fd, const struct iovec *parts, int n, off_t place)
WRITE(pwritev64, n, real(fd, parts, n / 2, place), real(fd, parts, n, place), int fd, const struct iovec *parts, int n, off64_t place)
WRITE(sendfile, n, real(fd, from, place, n / 2), real(fd, from, place, n), int fd, int from, off_t *place, size_t n)
WRITE(sendfile64, n, real(fd, from, place, n / 2), real(fd, from, place, n), int fd, int from, off64_t *place, size_t n)
WRITE(copy_file_range, n, real(from, a, fd, b, n / 2, flags), real(from, a, fd, b, n, flags), int from, off64_t *a, int fd, off64_t *b, size_t n, unsigned flags)

#define BY_FD(name, operation, takes, CALL, ...) int name(__VA_ARGS__) { REAL(name); char buffer[PATH_MAX]; WHOLE(operation, of_fd(fd, buffer), takes, -1); return real CALL; }
BY_FD(fsync, "sync", 1, (fd), int fd)
BY_FD(fdatasync, "sync", 1, (fd), int fd)
BY_FD(ftruncate, "truncate", 0, (fd, n), int fd, off_t n)
BY_FD(ftruncate64, "truncate", 0, (fd, n), int fd, off64_t n)
BY_FD(fallocate, "truncate", 1, (fd, mode, a, n), int fd, int mode, off_t a, off_t n)
BY_FD(fallocate64, "truncate", 1, (fd, mode, a, n), int fd, int mode, off64_t a, off64_t n)
BY_FD(posix_fallocate, "truncate", 1, (fd, a, n), int fd, off_t a, off_t n)
BY_FD(posix_fallocate64, "truncate", 1, (fd, a, n), int fd, off64_t a, off64_t n)

#define BY_PATH(name, operation, takes, DIR, CALL, ...) \
  int name(__VA_ARGS__) { REAL(name); char buffer[PATH_MAX]; WHOLE(operation, of_path(DIR, path, buffer), takes, -1); return real CALL; }
BY_PATH(truncate, "truncate", 0, AT_FDCWD, (path, n), const char *path, off_t n)
BY_PATH(truncate64, "truncate", 0, AT_FDCWD, (path, n), const char *path, off64_t n)
BY_PATH(mkdir, "mkdir", 1, AT_FDCWD, (path, mode), const char *path, mode_t mode)
BY_PATH(mkdirat, "mkdir", 1, dir, (dir, path, mode), int dir, const char *path, mode_t mode)
BY_PATH(unlink, "unlink", 0, AT_FDCWD, (path), const char *path)
BY_PATH(unlinkat, "unlink", 0, dir, (dir, path, flags), int dir, const char *path, int flags)
BY_PATH(remove, "unlink", 0, AT_FDCWD, (path), const char *path)
BY_PATH(rmdir, "rmdir", 0, AT_FDCWD, (path), const char *path)
BY_PATH(symlink, "link", 1, AT_FDCWD, (to, path), const char *to, const char *path)
BY_PATH(symlinkat, "link", 1, dir, (to, dir, path), const char *to, int dir, const char *path)
BY_PATH(link, "link", 1, AT_FDCWD, (to, path), const char *to, const char *path)
BY_PATH(linkat, "link", 1, dir, (from, to, dir, path, flags), int from, const char *to, int dir, const char *path, int flags)
BY_PATH(rename, "rename", 0, AT_FDCWD, (old, path), const char *old, const char *path)
BY_PATH(renameat, "rename", 0, dir, (from, old, dir, path), int from, const char *old, int dir, const char *path)
BY_PATH(renameat2, "rename", 0, dir, (from, old, dir, path, flags), int from, const char *old, int dir, const char *path, unsigned flags)
