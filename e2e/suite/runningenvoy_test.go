package suite

import (
	"crypto/x509"
	"fmt"
	"net"
	"os"
	"os/exec"
	"regexp"
	"slices"
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
	passed, skipped, hollow := results(string(out))
	if len(hollow) > 0 {
		t.Errorf("tests pass although each of their subtests is skipped: %v", hollow)
	}
	t.Logf("passed: %v; skipped: %v", passed, skipped)
	for _, name := range []string{
		"TestAnswerFollowsTheHealthyHosts", "TestReplyHasStatusBodyAndHeaders", "TestGetAndHeadOnThePathAreProbes",
		"TestProbeWithABodyOrTrailersIsAnsweredAtItsEnd",
		"TestClosedClientsLeaveNoActiveRequests", "TestDrainCutsOffRequestsAfterItsTimeout",
		"TestEnvoyIsNotReadyButAliveWhileTheBackendsAreDown", "TestIdleClusterIsCheckedAtItsInterval",
	} {
		if !slices.Contains(passed, name) {
			t.Errorf("%s has not passed", name)
		}
	}
	why := regexp.MustCompile(
		`(?m)^ {4}\w+_test\.go:\d+: (not with a running Envoy: |it is about |it runs with |.* cannot: )`)
	if n := len(why.FindAllString(string(out), -1)); n < len(skipped) {
		t.Errorf("%d tests are skipped, %d say why", len(skipped), n)
	}
}

// results reads the output of go test -v: the tests that passed, those that were skipped, and those that passed although each of their
// subtests was skipped (hollow).
func results(out string) (passed, skipped, hollow []string) {
	subtests, ran := map[string]bool{}, map[string]bool{}
	for _, line := range regexp.MustCompile(`(?m)^ *--- (PASS|SKIP|FAIL): (\S+)`).FindAllStringSubmatch(out, -1) {
		result, name := line[1], line[2]
		parent, _, isSubtest := strings.Cut(name, "/")
		switch {
		case isSubtest:
			subtests[parent] = true
			ran[parent] = ran[parent] || result != "SKIP"
		case result == "PASS":
			passed = append(passed, name)
		case result == "SKIP":
			skipped = append(skipped, name)
		}
	}
	for _, name := range passed {
		if subtests[name] && !ran[name] {
			hollow = append(hollow, name)
		}
	}
	return passed, skipped, hollow
}

func TestResultsFindHollowTests(t *testing.T) {
	t.Parallel()
	passed, skipped, hollow := results(`=== RUN   TestA
--- PASS: TestA (0.00s)
--- PASS: TestB (0.00s)
    --- SKIP: TestB/one (0.00s)
    --- SKIP: TestB/two (0.00s)
--- PASS: TestC (0.00s)
    --- SKIP: TestC/one (0.00s)
    --- PASS: TestC/two (0.00s)
--- SKIP: TestD (0.00s)
--- FAIL: TestE (0.00s)
`)
	if !slices.Equal(passed, []string{"TestA", "TestB", "TestC"}) || !slices.Equal(skipped, []string{"TestD"}) ||
		!slices.Equal(hollow, []string{"TestB"}) {
		t.Errorf("passed %v, skipped %v, hollow %v", passed, skipped, hollow)
	}
}
