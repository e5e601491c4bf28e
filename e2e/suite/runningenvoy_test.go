package suite

import (
	"crypto/x509"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"healthgate/e2e/testbed"
)

// running is a running Envoy with backends, which the suite did not start. All tests share it: run them with -test.parallel=1.
type running struct {
	envoy    *testbed.Envoy
	cert     *testbed.Certificate
	backends []*testbed.Backend
}

var theRunning *running

// runningEnvoy returns the Envoy that the environment names, or nil if the suite starts its own.
func runningEnvoy(t *testing.T) *running {
	t.Helper()
	if os.Getenv(testbed.EnvIngress) == "" || theRunning != nil {
		return theRunning
	}
	pem, err := os.ReadFile(os.Getenv(testbed.EnvCA))
	if err != nil {
		t.Fatalf("%s: %v", testbed.EnvCA, err)
	}
	at := &running{
		envoy: testbed.EnvoyAt(os.Getenv(testbed.EnvIngress), os.Getenv(testbed.EnvAdmin), variant.Options(testbed.Options{}).Sync),
		cert:  &testbed.Certificate{CertFile: os.Getenv(testbed.EnvCA), Pool: x509.NewCertPool()},
	}
	if !at.cert.Pool.AppendCertsFromPEM(pem) {
		t.Fatalf("%s: %s has no certificate", testbed.EnvCA, os.Getenv(testbed.EnvCA))
	}
	for pair := range strings.SplitSeq(os.Getenv(testbed.EnvBackends), ",") {
		address, control, ok := strings.Cut(pair, "=")
		resolved, err := net.ResolveTCPAddr("tcp", address) // Envoy has its hosts' IP addresses
		if !ok || err != nil {
			t.Fatalf("%s: %q is not host:port=host:port: %v", testbed.EnvBackends, pair, err)
		}
		at.backends = append(at.backends, testbed.BackendAt(resolved.String(), control))
	}
	settle = 90 * time.Second
	theRunning = at
	return at
}

// skipWithRunningEnvoy skips a test that cannot use an Envoy that the suite did not start.
func skipWithRunningEnvoy(t *testing.T, why string) {
	t.Helper()
	if runningEnvoy(t) != nil {
		t.Skipf("not with a running Envoy: %s", why)
	}
}

// site returns the running Envoy as a test's site, in its first state.
func (at *running) site(t *testing.T, options ...option) *site {
	t.Helper()
	p := newPlan(t, options...)
	switch {
	case p.alone != "":
		skipWithRunningEnvoy(t, p.alone)
	case len(p.changes) > 0 || p.second != "" || p.lds || p.rds || p.cds || p.eds || p.options.Env != nil || p.options.Workers != 0:
		skipWithRunningEnvoy(t, "it changes the configuration")
	case len(p.addresses) > len(at.backends):
		skipWithRunningEnvoy(t, fmt.Sprintf("it needs %d backends", len(p.addresses)))
	}
	s := &site{t: t, dir: t.TempDir(), envoy: at.envoy, cert: at.cert, backends: at.backends}
	s.post("/healthcheck/ok")
	s.setServing(len(s.backends))
	return s
}

// The suite against a running Envoy, as docker compose runs it. The testbed takes the place of the containers.
func TestSuiteRunsAgainstARunningEnvoy(t *testing.T) {
	t.Parallel()
	s := newSite(t, backends(2), alone("it is the running Envoy"))
	s.setServing(2)
	var pairs []string
	for _, backend := range s.backends {
		pairs = append(pairs, backend.Address+"="+backend.Control)
	}
	suite := exec.CommandContext(t.Context(), os.Args[0], "-test.v", "-test.parallel=1", "-test.timeout=5m", "-variant="+variant.Name())
	suite.Env = append(os.Environ(), testbed.EnvIngress+"="+s.envoy.Ingress, testbed.EnvAdmin+"="+s.envoy.Admin,
		testbed.EnvCA+"="+s.cert.CertFile, testbed.EnvBackends+"="+strings.Join(pairs, ","))
	out, err := suite.CombinedOutput()
	if err != nil {
		t.Fatalf("the suite ended with %v:\n%s", err, testbed.Tail(string(out), 200))
	}
	// As compose does: a test fails here, too, if it passes although each of its subtests is skipped.
	tally := exec.CommandContext(t.Context(), "awk", "-v", "service=the suite", "-f", filepath.Join(testbed.Root(), "e2e", "tally.awk"))
	tally.Stdin = strings.NewReader(string(out))
	if counted, err := tally.CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, testbed.Tail(string(counted), 10))
	}
	for _, name := range []string{
		"AnswerFollowsTheHealthyHosts", "ReplyHasStatusBodyAndHeaders", "GetAndHeadOnThePathAreProbes",
		"ProbeWithABodyOrTrailersIsAnsweredAtItsEnd",
		"ClosedClientsLeaveNoActiveRequests", "DrainCutsOffRequestsAfterItsTimeout",
		"EnvoyIsNotReadyButAliveWhileTheBackendsAreDown", "IdleClusterIsCheckedAtItsInterval",
	} {
		if !strings.Contains(string(out), "\n--- PASS: Test"+name+" ") {
			t.Errorf("Test%s has not passed", name)
		}
	}
}
