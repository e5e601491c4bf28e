// A wall clock that jumps, to be preloaded into Envoy: CLOCK_REALTIME is ahead by the seconds in the file that CLOCK_JUMP
// names, eight bytes in the machine's own order, which each call reads again. The monotonic clock does not jump, as if an operator had set
// the wall clock.

#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static int64_t ahead(void) {
  static volatile int64_t* seconds;
  if (seconds == NULL) {
    static int64_t none;
    const char* path = getenv("CLOCK_JUMP");
    int file = path == NULL ? -1 : open(path, O_RDONLY);
    void* mapped = file < 0 ? MAP_FAILED : mmap(NULL, sizeof *seconds, PROT_READ, MAP_SHARED, file, 0);
    seconds = mapped == MAP_FAILED ? &none : mapped;
    if (file >= 0) {
      close(file);
    }
  }
  return *seconds;
}

static int (*real)(clockid_t, struct timespec*);

// Resolved when it is loaded, not at the first call: dlsym allocates, and an allocator that asks for the time would wait
// for itself.
__attribute__((constructor)) static void resolve(void) {
  real = (int (*)(clockid_t, struct timespec*))dlsym(RTLD_NEXT, "clock_gettime");
}

int clock_gettime(clockid_t clock, struct timespec* now) {
  // Libraries that were loaded earlier may call this before resolve has run: then it asks the kernel without libc.
  int result = real != NULL ? real(clock, now) : (int)syscall(SYS_clock_gettime, clock, now);
  if (result == 0 && clock == CLOCK_REALTIME) {
    now->tv_sec += ahead();
  }
  return result;
}

int gettimeofday(struct timeval* restrict now, void* restrict zone) {
  struct timespec exact;
  (void)zone;
  if (clock_gettime(CLOCK_REALTIME, &exact) != 0) {
    return -1;
  }
  now->tv_sec = exact.tv_sec;
  now->tv_usec = exact.tv_nsec / 1000;
  return 0;
}

time_t time(time_t* now) {
  struct timespec exact;
  if (clock_gettime(CLOCK_REALTIME, &exact) != 0) {
    return -1;
  }
  if (now != NULL) {
    *now = exact.tv_sec;
  }
  return exact.tv_sec;
}
