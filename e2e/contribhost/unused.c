// What a plugin can import from the golang extension and Healthgate never calls. Each must resolve, or the plugin does not
// load; each ends Envoy when it is called, so that a test cannot pass on something that was never there.
//
// This file leaves out api.h on purpose: the functions take whatever they are given and never return.

#include <stdio.h>
#include <stdlib.h>

#define UNUSED(function)                                                                                               \
  void function(void) {                                                                                                \
    fprintf(stderr, "contrib host: the plugin called %s, which the contrib host does not have\n", #function);                  \
    abort();                                                                                                           \
  }

UNUSED(envoyGoFilterHttpAddData)
UNUSED(envoyGoFilterHttpClearRouteCache)
UNUSED(envoyGoFilterHttpContinue)
UNUSED(envoyGoFilterHttpCopyHeaders)
UNUSED(envoyGoFilterHttpCopyTrailers)
UNUSED(envoyGoFilterHttpDrainBuffer)
UNUSED(envoyGoFilterHttpGetBuffer)
UNUSED(envoyGoFilterHttpGetDynamicMetadata)
UNUSED(envoyGoFilterHttpGetIntegerValue)
UNUSED(envoyGoFilterHttpGetStringFilterState)
UNUSED(envoyGoFilterHttpGetStringProperty)
UNUSED(envoyGoFilterHttpGetStringSecret)
UNUSED(envoyGoFilterHttpGetStringValue)
UNUSED(envoyGoFilterHttpInjectData)
UNUSED(envoyGoFilterHttpRemoveHeader)
UNUSED(envoyGoFilterHttpRemoveTrailer)
UNUSED(envoyGoFilterHttpSendPanicReply)
UNUSED(envoyGoFilterHttpSetBufferHelper)
UNUSED(envoyGoFilterHttpSetDrainConnectionUponCompletion)
UNUSED(envoyGoFilterHttpSetDynamicMetadata)
UNUSED(envoyGoFilterHttpSetHeaderHelper)
UNUSED(envoyGoFilterHttpSetStringFilterState)
UNUSED(envoyGoFilterHttpSetTrailer)
UNUSED(envoyGoFilterHttpSetUpstreamOverrideHost)
