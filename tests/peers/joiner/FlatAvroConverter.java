import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Date;
import java.util.List;
import java.util.Map;
import org.apache.avro.Schema.Type;
import org.apache.avro.generic.GenericDatumReader;
import org.apache.avro.generic.GenericRecord;
import org.apache.avro.io.BinaryDecoder;
import org.apache.avro.io.DecoderFactory;
import org.apache.kafka.connect.data.Schema;
import org.apache.kafka.connect.data.SchemaAndValue;
import org.apache.kafka.connect.data.SchemaBuilder;
import org.apache.kafka.connect.data.Struct;
import org.apache.kafka.connect.data.Timestamp;
import org.apache.kafka.connect.storage.Converter;

/**
 * Framed Avro of one schema, which stands in the file that `schema.file` names, to Connect's structs. The fields of records
 * within the record become fields at the top; lists are left out. A registry is not asked.
 */
public class FlatAvroConverter implements Converter {
    private static final int FRAME_BYTES = 5;

    /** Where a field is found, and what it becomes. */
    private record Leaf(int outer, int inner, boolean isTime, org.apache.kafka.connect.data.Field field) {}

    private final List<Leaf> leaves = new ArrayList<>();
    private Schema schema;
    private GenericDatumReader<GenericRecord> reader;
    private GenericRecord record;
    private BinaryDecoder decoder;

    @Override
    public void configure(Map<String, ?> settings, boolean isKey) {
        org.apache.avro.Schema avro;
        try {
            avro = new org.apache.avro.Schema.Parser().parse(Files.readString(Path.of((String) settings.get("schema.file"))));
        } catch (IOException error) {
            throw new UncheckedIOException(error);
        }
        record Found(int outer, int inner, String name, org.apache.avro.Schema type) {}
        var found = new ArrayList<Found>();
        for (var field : avro.getFields()) {
            var type = present(field.schema());
            if (type.getType() == Type.RECORD) {
                type.getFields().forEach(inner -> found.add(new Found(field.pos(), inner.pos(), inner.name(), present(inner.schema()))));
            } else if (type.getType() != Type.ARRAY) {
                found.add(new Found(field.pos(), -1, field.name(), type));
            }
        }
        var builder = SchemaBuilder.struct().name(avro.getFullName());
        found.forEach(leaf -> builder.field(leaf.name(), become(leaf.type())));
        schema = builder.build();
        found.forEach(leaf -> leaves.add(new Leaf(leaf.outer(), leaf.inner(), isTime(leaf.type()), schema.field(leaf.name()))));
        reader = new GenericDatumReader<>(avro);
    }

    /** The type of a field that may be null. */
    private static org.apache.avro.Schema present(org.apache.avro.Schema type) {
        return type.isUnion() ? type.getTypes().stream().filter(each -> each.getType() != Type.NULL).findFirst().orElseThrow() : type;
    }

    private static boolean isTime(org.apache.avro.Schema type) {
        return type.getLogicalType() != null && type.getLogicalType().getName().equals("timestamp-micros");
    }

    private static Schema become(org.apache.avro.Schema type) {
        return switch (type.getType()) {
            case BOOLEAN -> Schema.OPTIONAL_BOOLEAN_SCHEMA;
            case INT -> Schema.OPTIONAL_INT32_SCHEMA;
            case LONG -> isTime(type) ? Timestamp.builder().optional().build() : Schema.OPTIONAL_INT64_SCHEMA;
            case FLOAT -> Schema.OPTIONAL_FLOAT32_SCHEMA;
            case DOUBLE -> Schema.OPTIONAL_FLOAT64_SCHEMA;
            default -> Schema.OPTIONAL_STRING_SCHEMA;
        };
    }

    @Override
    public SchemaAndValue toConnectData(String topic, byte[] value) {
        if (value == null) {
            return SchemaAndValue.NULL;
        }
        try {
            decoder = DecoderFactory.get().binaryDecoder(value, FRAME_BYTES, value.length - FRAME_BYTES, decoder);
            record = reader.read(record, decoder);
        } catch (IOException error) {
            throw new UncheckedIOException(error);
        }
        var struct = new Struct(schema);
        for (var leaf : leaves) {
            Object found = record.get(leaf.outer());
            if (leaf.inner() >= 0 && found != null) {
                found = ((GenericRecord) found).get(leaf.inner());
            }
            if (found instanceof CharSequence text) {
                found = text.toString();
            } else if (leaf.isTime() && found != null) {
                found = new Date((Long) found / 1000);
            }
            struct.put(leaf.field(), found);
        }
        return new SchemaAndValue(schema, struct);
    }

    @Override
    public byte[] fromConnectData(String topic, Schema schema, Object value) {
        throw new UnsupportedOperationException("it only reads");
    }
}
