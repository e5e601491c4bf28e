// The functions of Go that C calls. Only a gate's first probe, and probes that get a report, call Go.
#pragma once

#include "base.h"

struct hg_filter;
struct hg_route;
struct hg_gate;
struct hg_reply;

// On the main thread.
extern void healthgateLoad(void);         // logs the version
extern void healthgateDefineShared(void); // defines the stats that all filters share
// healthgateStart starts the thread that samples the clusters and evaluates the gates; healthgateStop ends it.
extern void healthgateStart(void);
extern void healthgateStop(void);
extern void healthgateWithoutLifecycle(void); // Envoy does not report which clusters it adds and removes
extern void healthgateCluster(char *name, size_t length, bool removed);
// The next two return false if the configuration can't be used, after logging why.
extern bool healthgateFilterCreate(struct hg_filter *filter, char *config, size_t length);
extern bool healthgateRouteCreate(struct hg_route *route, char *config, size_t length);

// On any thread.
extern void healthgateFilterDestroy(uintptr_t filter);
extern void healthgateRouteDestroy(uintptr_t route);

// On a worker.
// healthgateFilterGate returns a filter's own gate, with a reference for the caller; never NULL.
extern struct hg_gate *healthgateFilterGate(uintptr_t filter);
// healthgateMergedGate returns the gate of a filter with a route override, with a reference for the caller; NULL if there is none.
extern struct hg_gate *healthgateMergedGate(uintptr_t filter, uintptr_t route);
// healthgateFirstProbe returns the reply to a gate's first probe. It samples the clusters if no pass has covered them yet.
extern struct hg_reply *healthgateFirstProbe(uintptr_t gate);
// healthgateReport returns a reply with a report, or NULL if the client does not accept JSON.
extern struct hg_reply *healthgateReport(uintptr_t gate, char *accept, size_t length);
