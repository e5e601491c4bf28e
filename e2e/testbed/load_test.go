package testbed

import (
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"
)

func TestLoadCountsAnswers(t *testing.T) {
	var calls atomic.Int64
	outcome, err := StartLoad(Pace{Clients: 4, Requests: 100}, func(client int) string {
		calls.Add(1)
		return []string{"even", "odd"}[client%2]
	}).Wait()
	if err != nil || outcome.Requests != 100 || calls.Load() != 100 || outcome.Answers["even"]+outcome.Answers["odd"] != 100 ||
		outcome.P99 < outcome.P50 {
		t.Errorf("got %+v, %v after %d calls", outcome, err, calls.Load())
	}
}

func TestLoadEndsWhenItIsStopped(t *testing.T) {
	l := StartLoad(Pace{Clients: 2, PerSecond: 1000}, func(int) string { return "ok" })
	if err := WaitFor(t.Context(), 10*time.Second, func() error {
		if l.Answers()["ok"] < 10 {
			return http.ErrAbortHandler
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	outcome, err := l.Stop()
	again, _ := l.Stop()
	if err != nil || outcome.Answers["ok"] < 10 || outcome.Requests != again.Requests {
		t.Errorf("got %+v, %v, and then %+v", outcome, err, again)
	}
}

func TestProbesCountStatusesAndMissingAnswers(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) }))
	outcome, err := StartProbes(Pace{Clients: 2, Requests: 20}, server.URL, ProbeOptions{NewConnections: true}).Wait()
	if err != nil || outcome.Answers["418"] != 20 {
		t.Errorf("got %+v, %v", outcome, err)
	}
	server.Close()
	outcome, err = StartProbes(Pace{Requests: 5}, server.URL, ProbeOptions{}).Wait()
	if err != nil || outcome.Answers[NoAnswer] != 5 {
		t.Errorf("without a server: got %+v, %v", outcome, err)
	}
}
