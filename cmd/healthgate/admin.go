package main

import (
	"cmp"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"healthgate/internal/envoyadmin"
)

// adminFlag adds --admin, whose default is ADMIN_ADDRESS. The returned function makes a client of that address.
func adminFlag(command *cobra.Command) func() (*envoyadmin.Client, error) {
	const variable = "ADMIN_ADDRESS"
	fromEnvironment := os.Getenv(variable)
	address := command.Flags().String("admin", cmp.Or(fromEnvironment, envoyadmin.DefaultAddress),
		"address of admin: host:port, or unix:///path; also "+variable)
	return func() (*envoyadmin.Client, error) {
		client, err := envoyadmin.New(*address)
		if err == nil {
			return client, nil
		}
		name := "--admin"
		if fromEnvironment != "" && !command.Flags().Changed("admin") {
			name = variable
		}
		return nil, fmt.Errorf("%s: %w", name, err)
	}
}

// noArgument refuses arguments. The error names the flag that was probably meant.
func noArgument(flag string) cobra.PositionalArgs {
	return func(command *cobra.Command, args []string) error {
		if len(args) > 0 {
			return fmt.Errorf("%s takes no argument: write --%s %s", command.Name(), flag, args[0])
		}
		return nil
	}
}
