// Open calls of Watch.
#pragma once

#include "group.h"
#include "response.h"

typedef struct hg_watcher hg_watcher;

// hg_watch_start begins a call's response; known is whether the gate has the service. It returns false, and sends nothing, if the gate has
// watchers_max watchers already.
bool hg_watch_start(hg_stream *stream, const hg_origin *origin, int64_t deadline, bool known);
void hg_watch_end(hg_stream *stream);

// On the stream's worker.
void hg_watch_resume(hg_stream *stream);                    // sends what hg_watch_notify has scheduled
void hg_watch_set_blocked(hg_stream *stream, bool blocked); // one more buffer is full, or one less

// On any thread, also Go's.
// hg_watch_notify schedules each watcher that has an update or has to end. It returns how many watchers there are.
size_t hg_watch_notify(void);
void hg_watch_stop_all(void); // the next hg_watch_notify ends all watchers; later ones end as they start
// hg_watch_supersede makes the next hg_watch_notify end the gate's watchers, because a newer configuration replaces it.
void hg_watch_supersede(hg_gate *gate);
