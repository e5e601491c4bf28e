package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"healthgate/e2e/testbed"
)

// tools are the programs that are run.
type tools struct {
	version       string // of Envoy Gateway
	folder        string // of egctl and envoy-gateway
	egctl, server string
	command       string // build/healthgate
	envoy, module string
	envoyVersion  string
}

const gatewayModule = "github.com/envoyproxy/gateway"

// find finds the tools, and returns every one that is missing with how to get it.
func find(version string, inside bool) (*tools, error) {
	build := filepath.Join(testbed.Root(), "build")
	t := &tools{version: version, folder: filepath.Join(build, "envoy-gateway", version)}
	t.egctl, t.server = filepath.Join(t.folder, "egctl"), filepath.Join(t.folder, "envoy-gateway")
	t.command, t.module = filepath.Join(build, "healthgate"), filepath.Join(build, "libhealthgate.so")
	var missing []error
	if _, err := exec.LookPath("go"); err != nil {
		missing = append(missing, errors.New("go is missing: https://go.dev/dl"))
	}
	for _, file := range []string{t.command, t.module, filepath.Join(build, "backend")} {
		if _, err := os.Stat(file); err != nil {
			missing = append(missing, fmt.Errorf("%s is missing: make build", file))
		}
	}
	if !inside {
		if err := inNamespace(exec.Command("true")).Run(); err != nil {
			missing = append(missing, fmt.Errorf("no network namespace can be made (%w): run this as root, or allow unprivileged user "+
				"namespaces: sysctl -w kernel.apparmor_restrict_unprivileged_userns=0, or kernel.unprivileged_userns_clone=1", err))
		}
	}
	var err error
	if t.envoy, err = testbed.EnvoyPath(); err == nil {
		t.envoyVersion, err = testbed.EnvoyVersion()
	}
	if err != nil {
		missing = append(missing, err)
	}
	return t, errors.Join(missing...)
}

// inNamespace makes a command run in a new network namespace, in which Envoy Gateway's fixed ports are free, and in a new process
// namespace, which ends with the command and takes with it everything that the command has started.
func inNamespace(cmd *exec.Cmd) *exec.Cmd {
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWPID, Pdeathsig: syscall.SIGKILL}
	if user := os.Getuid(); user != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: user, Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	return cmd
}

// build builds egctl and envoy-gateway, if they are not yet there.
func (t *tools) build(ctx context.Context) error {
	var packages []string
	for _, file := range []string{t.egctl, t.server} {
		if _, err := os.Stat(file); err != nil {
			packages = append(packages, gatewayModule+"/cmd/"+filepath.Base(file)+"@"+t.version)
		}
	}
	if len(packages) == 0 {
		return nil
	}
	fmt.Printf("building %s; the first time this takes 14 CPU-minutes, 1.5 GB of modules and 2 GB of build cache\n",
		strings.Join(packages, " and "))
	install := exec.CommandContext(ctx, "go", append([]string{"install"}, packages...)...)
	install.Dir = os.TempDir() // Envoy Gateway's own go.mod counts, and not the one here
	install.Env = append(os.Environ(), "GOBIN="+t.folder, "GOFLAGS=-buildvcs=false")
	install.Stderr = os.Stderr
	return install.Run()
}
