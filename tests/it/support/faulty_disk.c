/* A disk that fails when it is told to: loaded in front of the C library
 * (LD_PRELOAD), it stands between a process and the files of one folder.
 *
 * FAULTY_DISK_FOLDER names the folder, FAULTY_DISK_CONTROL a file outside it. While
 * that file is there, it says in two words which calls fail and how:
 *
 *   write  ENOSPC | EIO | EROFS   the call fails (EROFS: opening to write does too)
 *   write  short                  half is written, and the call says so
 *   write  tear                   a page is written in part, and then the call fails
 *   sync   EIO                    the call fails, and nothing was synced
 *   read   EIO                    the call fails
 *   write | sync | read   hang    the call waits until the file says something else
 *   all    hang                   the same for each of the three
 *
 * Every call reads the file anew, by system calls of its own.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

/* A write of less than this is none of a page, and is not torn. */
#define LEAST_OF_A_PAGE 500
/* One of less than this is the rest of a page that was torn. */
#define REST_OF_A_PAGE 600

static char folder[PATH_MAX];
static char control[PATH_MAX];

__attribute__((constructor)) static void find_folder(void) {
    const char *data = getenv("FAULTY_DISK_FOLDER");
    const char *file = getenv("FAULTY_DISK_CONTROL");
    if (data && file && realpath(data, folder))
        snprintf(control, sizeof control, "%s", file);
}

static int is_below_folder(const char *path) {
    size_t length = strlen(folder);
    return length > 0 && strncmp(path, folder, length) == 0 &&
           (path[length] == '/' || path[length] == '\0');
}

static int is_file_of_folder(int fd) {
    char link[64], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    long length = syscall(SYS_readlinkat, AT_FDCWD, link, path, sizeof path - 1);
    if (length <= 0)
        return 0;
    path[length] = '\0';
    return is_below_folder(path);
}

/* How such calls fail at this moment; an empty text if they do not. */
static void read_control(const char *calls, char how[16]) {
    char text[64] = "", which[16] = "";
    how[0] = '\0';
    if (control[0] == '\0')
        return;
    int fd = (int)syscall(SYS_openat, AT_FDCWD, control, O_RDONLY | O_CLOEXEC, 0);
    if (fd < 0)
        return;
    long length = syscall(SYS_read, fd, text, sizeof text - 1);
    syscall(SYS_close, fd);
    if (length > 0 && sscanf(text, "%15s %15s", which, how) == 2 &&
        (strcmp(which, calls) == 0 || strcmp(which, "all") == 0))
        return;
    how[0] = '\0';
}

/* Whether this call is to fail, and then errno says why. Returns late if it is
 * to hang. */
static int fails(const char *calls, int fd, char how[16]) {
    int before = errno;
    read_control(calls, how);
    if (how[0] == '\0' || !is_file_of_folder(fd)) {
        how[0] = '\0';
        errno = before;
        return 0;
    }
    while (strcmp(how, "hang") == 0) {
        struct timespec pause = {0, 2000000};
        nanosleep(&pause, NULL);
        read_control(calls, how);
    }
    errno = strcmp(how, "ENOSPC") == 0 ? ENOSPC
            : strcmp(how, "EROFS") == 0 ? EROFS
            : strcmp(how, "EIO") == 0   ? EIO
                                        : 0;
    if (errno)
        return 1;
    errno = before;
    return 0;
}

/* How much of a write is done, or zero if it is to fail. */
static size_t written(int fd, size_t size) {
    char how[16];
    if (fails("write", fd, how))
        return 0;
    int is_torn = strcmp(how, "tear") == 0 && size > LEAST_OF_A_PAGE;
    if (is_torn && size <= REST_OF_A_PAGE) {
        errno = ENOSPC;
        return 0;
    }
    if ((is_torn || strcmp(how, "short") == 0) && size > 1)
        return size / 2;
    return size;
}

#define REAL(name) \
    static __typeof__(name) *real; \
    if (!real) \
        real = (__typeof__(name) *)dlsym(RTLD_NEXT, #name)

ssize_t write(int fd, const void *bytes, size_t size) {
    REAL(write);
    size_t part = written(fd, size);
    return part || !size ? real(fd, bytes, part) : -1;
}

ssize_t pwrite(int fd, const void *bytes, size_t size, off_t at) {
    REAL(pwrite);
    size_t part = written(fd, size);
    return part || !size ? real(fd, bytes, part, at) : -1;
}

ssize_t pwrite64(int fd, const void *bytes, size_t size, off64_t at) {
    REAL(pwrite64);
    size_t part = written(fd, size);
    return part || !size ? real(fd, bytes, part, at) : -1;
}

ssize_t writev(int fd, const struct iovec *parts, int number) {
    REAL(writev);
    char how[16];
    return fails("write", fd, how) ? -1 : real(fd, parts, number);
}

int ftruncate(int fd, off_t size) {
    REAL(ftruncate);
    char how[16];
    return fails("write", fd, how) ? -1 : real(fd, size);
}

int ftruncate64(int fd, off64_t size) {
    REAL(ftruncate64);
    char how[16];
    return fails("write", fd, how) ? -1 : real(fd, size);
}

int fsync(int fd) {
    REAL(fsync);
    char how[16];
    return fails("sync", fd, how) ? -1 : real(fd);
}

int fdatasync(int fd) {
    REAL(fdatasync);
    char how[16];
    return fails("sync", fd, how) ? -1 : real(fd);
}

ssize_t read(int fd, void *bytes, size_t size) {
    REAL(read);
    char how[16];
    return fails("read", fd, how) ? -1 : real(fd, bytes, size);
}

ssize_t readv(int fd, const struct iovec *parts, int number) {
    REAL(readv);
    char how[16];
    return fails("read", fd, how) ? -1 : real(fd, parts, number);
}

ssize_t pread(int fd, void *bytes, size_t size, off_t at) {
    REAL(pread);
    char how[16];
    return fails("read", fd, how) ? -1 : real(fd, bytes, size, at);
}

ssize_t pread64(int fd, void *bytes, size_t size, off64_t at) {
    REAL(pread64);
    char how[16];
    return fails("read", fd, how) ? -1 : real(fd, bytes, size, at);
}

/* A file system that became read-only opens nothing to write either. */
static int is_read_only(const char *path, int flags) {
    char how[16];
    int writes = (flags & O_ACCMODE) != O_RDONLY || (flags & O_CREAT);
    if (!writes || !is_below_folder(path))
        return 0;
    read_control("write", how);
    if (strcmp(how, "EROFS") != 0)
        return 0;
    errno = EROFS;
    return 1;
}

static mode_t mode_of(int flags, va_list rest) {
    int makes = (flags & O_CREAT) || (flags & O_TMPFILE) == O_TMPFILE;
    return makes ? va_arg(rest, mode_t) : 0;
}

int open(const char *path, int flags, ...) {
    REAL(open);
    va_list rest;
    va_start(rest, flags);
    mode_t mode = mode_of(flags, rest);
    va_end(rest);
    return is_read_only(path, flags) ? -1 : real(path, flags, mode);
}

int open64(const char *path, int flags, ...) {
    REAL(open64);
    va_list rest;
    va_start(rest, flags);
    mode_t mode = mode_of(flags, rest);
    va_end(rest);
    return is_read_only(path, flags) ? -1 : real(path, flags, mode);
}
