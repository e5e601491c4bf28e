// What C calls of Go. No probe comes this way but a gate's first one, and those that are sent a report.
#ifndef HEALTHGATE_GO_H
#define HEALTHGATE_GO_H

#include "healthgate.h"

// Main thread. False: it can't be used, and a log line has said why.
extern bool healthgateFilterNew(hg_filter *filter, char *config, size_t length);
extern bool healthgateRouteNew(hg_route *route, char *config, size_t length);
// Any thread.
extern void healthgateFilterEnd(uintptr_t filter);
extern void healthgateRouteEnd(uintptr_t route);
// A worker. The gate of a filter by itself, held once for the caller; never NULL.
extern hg_gate *healthgateOwnGate(uintptr_t filter);
// A worker. The gate of a route's configuration laid over a filter's, held once for the caller; NULL where there is none.
extern hg_gate *healthgateLay(uintptr_t filter, uintptr_t route);
// A worker. The reply with a report for a client that accepts it; NULL where it is to have the plain one.
extern hg_reply *healthgateReport(uintptr_t gate, char *accept, size_t length);
// A worker, at a gate's first probe: samples the clusters if nothing is known of them yet, and returns the reply.
extern const hg_reply *healthgateFirstProbe(uintptr_t gate);
// Main thread. Begins to sample the clusters and to evaluate the gates, on a thread of its own; healthgateStop ends that.
extern void healthgateStart(void);
// Main thread. Defines the stats that all filters share.
extern void healthgateShareMetrics(void);
extern void healthgateCluster(char *name, size_t length, bool removed);
extern void healthgateWithoutLifecycle(void); // Envoy does not report which clusters it adds and removes
extern void healthgateStop(void);

#endif
