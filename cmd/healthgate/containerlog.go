package main

import (
	"cmp"
	"errors"
	"io"
	"log"
	"os"
	"syscall"

	"github.com/spf13/cobra"
)

// defaultLog is the standard output of the container's first process. Kubernetes discards a hook's own output.
const defaultLog = "/proc/1/fd/1"

// logFlag adds --log, whose default is CONTAINER_LOG.
func logFlag(command *cobra.Command) *string {
	return command.Flags().String("log", cmp.Or(os.Getenv("CONTAINER_LOG"), defaultLog),
		"the container's log, which gets each line too; also CONTAINER_LOG")
}

// containerLog is a log file of the container. It need not exist.
type containerLog string

func (file containerLog) Write(line []byte) (int, error) {
	// A pipe without a reader is an error; it does not block.
	if log, err := os.OpenFile(string(file), os.O_WRONLY|os.O_APPEND|syscall.O_NONBLOCK, 0); err == nil {
		defer log.Close()
		its, _ := log.Stat()
		if own, err := os.Stdout.Stat(); err != nil || !os.SameFile(its, own) {
			_, _ = log.Write(line)
		}
	}
	return len(line), nil
}

// logged calls run with a logger to out and the container's log. The latter gets the returned error too, unless it is reported.
func logged(command *cobra.Command, out io.Writer, container containerLog, run func(*log.Logger) error) error {
	prefix := "healthgate: " + command.Name() + ": "
	err := run(log.New(io.MultiWriter(container, out), prefix, 0))
	if code := reported(0); err != nil && !errors.As(err, &code) {
		log.New(container, prefix, 0).Print(err)
	}
	return err
}
