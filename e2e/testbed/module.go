package testbed

import (
	"context"
	"fmt"
	"net/http"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"time"
)

// dynamicModule is the variant for any stock Envoy.
type dynamicModule struct{}

func newModule() (Variant, error) { return dynamicModule{}, nil }

func (dynamicModule) Name() string   { return "module" }
func (dynamicModule) Object() string { return built("libhealthgate.so") }

func (s dynamicModule) Options(o Options) Options {
	o.Needs = append(o.Needs, s.Object())
	o.Env = append(o.Env, "ENVOY_DYNAMIC_MODULES_SEARCH_PATH="+built(""))
	o.Sync = awaitSample
	return o
}

// sampleCounter is the counter of the module's samples with which all gates were evaluated.
const sampleCounter = "healthgate.looks"

// awaitSample waits until the module has evaluated a sample that began after the call: that is the second sample to end. If a stats matcher
// excludes the counter, it waits for twice the time of two samples on an idle machine.
func awaitSample(envoy *Envoy) error {
	begun, kept, err := readSampleCount(envoy)
	if err != nil || !kept {
		time.Sleep(200 * time.Millisecond)
		return err
	}
	return WaitFor(context.Background(), 20*time.Second, func() error {
		now, _, err := readSampleCount(envoy)
		if err == nil && now < begun+2 {
			err = fmt.Errorf("%s is %d, after %d", sampleCounter, now, begun)
		}
		return err
	})
}

func readSampleCount(envoy *Envoy) (n int, kept bool, err error) {
	text, err := envoy.Ask(http.MethodGet, "/stats?filter=^healthgate[.]looks$")
	if err != nil {
		return 0, false, err
	}
	_, err = fmt.Sscanf(text, sampleCounter+": %d", &n)
	return n, err == nil, nil
}

func (s dynamicModule) Can(a Ability) error {
	if a == HangMainThread {
		return cannot("dynamic module", a, cannotFreeze())
	}
	return cannot("dynamic module", a, map[Ability]string{
		OverrideLevels:    "Envoy gives a module only a route's most specific level",
		LoseMetrics:       "Envoy keeps its stats as long as its configuration",
		CountLiveObjects:  "it has no such counter",
		CountMerges:       "Envoy merges nothing for it",
		UnnoticedRemovals: "Envoy notifies it of each removed cluster",
		DefinesGauges:     "it reads Envoy's own",
		CheckAge:          "it knows the age of its samples, and which clusters Envoy has",
		LateRouteErrors:   "Envoy reads each route on its main thread, and refuses a bad one",
		Pipelining:        "it answers immediately, and Envoy takes more than two such answers at once for a flood, as with its own filter",
		LateMetrics:       "Envoy defines none after a filter's configuration was created",
	}[a])
}

func (dynamicModule) LiveObjects(*Envoy) (LiveObjects, error) { return LiveObjects{}, nil }

// freeze is a Python program that stops one thread, and no other of its process, for some seconds. It runs in another process because the
// kernel reports the stop to the tracer's process, which waits for children itself.
const freeze = `
import ctypes, os, sys, time
ptrace = ctypes.CDLL(None, use_errno=True).ptrace
ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
thread, seconds = int(sys.argv[1]), float(sys.argv[2])
PTRACE_ATTACH, PTRACE_DETACH = 16, 17
if ptrace(PTRACE_ATTACH, thread, None, None) != 0:
    sys.exit("the thread cannot be stopped: " + os.strerror(ctypes.get_errno()))
os.waitpid(thread, 0x40000000) # __WALL
time.sleep(seconds)
ptrace(PTRACE_DETACH, thread, None, None)
`

// cannotFreeze tries freezeThread on an idle process, and returns why it fails, or "": it needs python3, and the right to trace a process
// that is not its child, which root has, and every user if kernel.yama.ptrace_scope is 0.
var cannotFreeze = sync.OnceValue(func() string {
	if _, err := exec.LookPath("python3"); err != nil {
		return fmt.Sprint("it needs python3: ", err)
	}
	idle := exec.Command("sleep", "60")
	if err := idle.Start(); err != nil {
		return err.Error()
	}
	defer func() {
		_ = idle.Process.Kill()
		_ = idle.Wait()
	}()
	if err := freezeThread(idle.Process.Pid, 0); err != nil {
		return err.Error()
	}
	return ""
})

// freezeThread stops a thread for some seconds, and returns when it runs again.
func freezeThread(thread, seconds int) error {
	out, err := exec.Command("python3", "-c", freeze, strconv.Itoa(thread), strconv.Itoa(seconds)).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w: %s", err, strings.TrimSpace(string(out)))
	}
	return nil
}

// Hang stops Envoy's main thread.
func (dynamicModule) Hang(envoy *Envoy, seconds int) error { return freezeThread(envoy.Pid(), seconds) }

func (s dynamicModule) LoseMetrics(*Envoy, bool) error { return s.Can(LoseMetrics) }
